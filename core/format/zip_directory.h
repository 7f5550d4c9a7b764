#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/base/files.h"

namespace qb {

// A file inside a zip archive, at its place in the archive's own file.
struct ZipEntry {
  std::string name;
  uint64_t offset = 0, bytes = 0;  // as they lie there
  bool stored = true;              // the bytes are the file's own; else they are compressed or encrypted
};

// The directory of a zip archive (APPNOTE 6.3, Zip64 included). Throws InputError naming the file, and the entry, for a cut archive,
// names given twice, sizes or places that do not lie in the file or that overlap.
std::vector<ZipEntry> read_zip_directory(const MappedFile& file);

}  // namespace qb
