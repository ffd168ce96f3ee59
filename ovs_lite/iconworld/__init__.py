"""IconWorld: a miniature open world drawn from two icon fonts, with everything about each picture known exactly."""
