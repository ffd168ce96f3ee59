"""IconWorld: a miniature open world drawn from six sets of emoji and two icon fonts; everything about
each picture is known exactly."""
