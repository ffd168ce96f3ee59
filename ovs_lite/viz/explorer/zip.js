// A ZIP of files as they are (PNG is compressed already), after PKWARE's APPNOTE 6.3: local headers, the central
// directory, its end. Names are ASCII. Pure: node tests it alone.

/** CRC-32 of bytes (reversed polynomial EDB88320). */
export function crc32(bytes) {
  let rest = 0xffffffff;
  for (const byte of bytes) {
    rest ^= byte;
    for (let bit = 0; bit < 8; bit++) rest = (rest >>> 1) ^ (rest & 1 ? 0xedb88320 : 0);
  }
  return (rest ^ 0xffffffff) >>> 0;
}

/** Little-endian numbers: [[value, bytes], ...]. */
function packed(fields) {
  return Uint8Array.from(fields.flatMap(([value, size]) => Array.from({ length: size }, (_, i) => (value >>> (8 * i)) & 255)));
}

/** [[name, bytes], ...] -> the parts of a ZIP, in order. Dates are 1 January 1980, so that equal masks are equal files. */
export function zipParts(files) {
  const parts = [], directory = [];
  let offset = 0;
  for (const [name, bytes] of files) {
    const letters = Uint8Array.from(name, (letter) => letter.charCodeAt(0));
    const about = [[20, 2], [0, 2], [0, 2], [0, 2], [0x21, 2], [crc32(bytes), 4], [bytes.length, 4], [bytes.length, 4],
      [letters.length, 2], [0, 2]];
    const local = packed([[0x04034b50, 4], ...about]);
    directory.push(packed([[0x02014b50, 4], [20, 2], ...about, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]]), letters);
    parts.push(local, letters, bytes);
    offset += local.length + letters.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = [[0x06054b50, 4], [0, 2], [0, 2], [files.length, 2], [files.length, 2], [size, 4], [offset, 4], [0, 2]];
  return [...parts, ...directory, packed(end)];
}

/** The same as a file to download. */
function zip(files) {
  return new Blob(zipParts(files), { type: "application/zip" });
}
