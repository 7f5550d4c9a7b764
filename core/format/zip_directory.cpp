#include "core/format/zip_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_set>

#include "core/base/error.h"
#include "core/base/utf8.h"

namespace qb {
namespace {

constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50, kLocator64 = 0x07064b50;
constexpr uint32_t kIn64 = 0xffffffff;  // the value stands in the Zip64 part

class Reader {
 public:
  explicit Reader(const MappedFile& file) : file_(file) {}

  std::vector<ZipEntry> read() {
    find_directory();
    std::vector<ZipEntry> entries;
    if (count_ > directory_bytes_ / 46) throw damaged(fmt::format("{} entries do not fit into its directory of {} bytes", count_, directory_bytes_));
    std::unordered_set<std::string> names;
    uint64_t at = directory_;
    for (uint64_t i = 0; i < count_; ++i) {
      entries.push_back(read_entry(at));
      if (!names.insert(entries.back().name).second) throw wrong(entries.back().name, "stands there twice");
    }
    if (at != directory_ + directory_bytes_) throw damaged(fmt::format("its directory takes {} bytes, expected {}", at - directory_, directory_bytes_));
    std::vector<const ZipEntry*> order;
    for (const ZipEntry& entry : entries) order.push_back(&entry);
    std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
    for (size_t i = 1; i < order.size(); ++i)
      if (order[i]->offset - order[i - 1]->offset < order[i - 1]->bytes) throw wrong(order[i]->name, fmt::format("overlaps {}", qb::quoted(order[i - 1]->name)));
    return entries;
  }

 private:
  template <class T>
  T number(uint64_t at, std::string_view what) const {
    T value;
    std::memcpy(&value, file_.bytes(at, sizeof(T), what).data(), sizeof(T));
    return value;
  }
  InputError damaged(const std::string& what) const { return InputError(fmt::format("{}: not a whole zip archive: {}", file_.path().string(), what)); }
  InputError wrong(const std::string& name, const std::string& what) const {
    return InputError(fmt::format("{}: entry {} of the zip archive {}", file_.path().string(), qb::quoted(name), what));
  }

  // From the record at the end of the file, which a comment may follow.
  void find_directory() {
    const uint64_t size = file_.size(), lowest = size > 22 + 65535 ? size - 22 - 65535 : 0;
    if (size < 22) throw damaged(fmt::format("{} bytes", size));
    uint64_t end = size - 22;
    while (number<uint32_t>(end, "the end of the directory") != kEnd || number<uint16_t>(end + 20, "the length of the comment") != size - end - 22) {
      if (end == lowest) throw damaged("it has no directory at its end (truncated?)");
      --end;
    }
    count_ = number<uint16_t>(end + 10, "the number of entries");
    directory_bytes_ = number<uint32_t>(end + 12, "the size of the directory");
    directory_ = number<uint32_t>(end + 16, "the place of the directory");
    uint64_t limit = end;
    if (end >= 20 && number<uint32_t>(end - 20, "the Zip64 locator") == kLocator64) {
      limit = number<uint64_t>(end - 12, "the place of the Zip64 record");
      if (limit > end - 20 || end - 20 - limit < 56 || number<uint32_t>(limit, "the Zip64 record") != kEnd64) throw damaged("its Zip64 record is not where it should be");
      count_ = number<uint64_t>(limit + 32, "the number of entries");
      directory_bytes_ = number<uint64_t>(limit + 40, "the size of the directory");
      directory_ = number<uint64_t>(limit + 48, "the place of the directory");
    }
    if (directory_ > limit || directory_bytes_ != limit - directory_) throw damaged(fmt::format("its directory of {} bytes at {} does not end at {}", directory_bytes_, directory_, limit));
  }

  // Advances `at`.
  ZipEntry read_entry(uint64_t& at) const {
    if (number<uint32_t>(at, "an entry") != kCentral) throw damaged(fmt::format("no entry of the directory at byte {}", at));
    const auto flags = number<uint16_t>(at + 8, "flags"), method = number<uint16_t>(at + 10, "a method");
    uint64_t stored = number<uint32_t>(at + 20, "a size"), bytes = number<uint32_t>(at + 24, "a size"), place = number<uint32_t>(at + 42, "a place");
    const uint64_t name_bytes = number<uint16_t>(at + 28, "a length"), extra_bytes = number<uint16_t>(at + 30, "a length"), comment_bytes = number<uint16_t>(at + 32, "a length");
    ZipEntry entry;
    entry.name = text(at + 46, name_bytes);
    read_zip64(at + 46 + name_bytes, extra_bytes, entry.name, {{&bytes, &stored, &place}});
    at += 46 + name_bytes + extra_bytes + comment_bytes;
    entry.stored = (flags & 1) == 0 && method == 0;
    if (entry.stored && stored != bytes) throw wrong(entry.name, fmt::format("has {} bytes, of which {} are stored", bytes, stored));
    if (place > directory_ || directory_ - place < 30 || number<uint32_t>(place, "an entry") != kLocal) throw wrong(entry.name, fmt::format("is not where the directory says ({})", place));
    const uint64_t own_name = number<uint16_t>(place + 26, "a length"), own_extra = number<uint16_t>(place + 28, "a length");
    if (text(place + 30, own_name) != entry.name) throw wrong(entry.name, "has another name where its bytes are");
    entry.offset = place + 30 + own_name + own_extra;
    entry.bytes = stored;
    if (entry.offset > directory_ || stored > directory_ - entry.offset) throw wrong(entry.name, fmt::format("has {} bytes at {}, beyond the directory at {}", stored, entry.offset, directory_));
    return entry;
  }

  // Values that do not fit 32 bits, in their order.
  void read_zip64(uint64_t at, uint64_t bytes, const std::string& name, std::array<uint64_t*, 3> values) const {
    for (const uint64_t end = at + bytes; end - at >= 4;) {
      const auto id = number<uint16_t>(at, "an extra field");
      const uint64_t length = number<uint16_t>(at + 2, "an extra field");
      at += 4;
      if (length > end - at) throw wrong(name, "has a broken extra field");
      if (id == 1) {
        uint64_t from = at;
        for (uint64_t* value : values)
          if (*value == kIn64) {
            if (at + length - from < 8) throw wrong(name, "has a broken Zip64 field");
            *value = number<uint64_t>(from, "a Zip64 field");
            from += 8;
          }
        return;
      }
      at += length;
    }
  }

  std::string text(uint64_t at, uint64_t bytes) const {
    const auto found = file_.bytes(at, bytes, "a name");
    return {reinterpret_cast<const char*>(found.data()), found.size()};
  }

  const MappedFile& file_;
  uint64_t count_ = 0, directory_ = 0, directory_bytes_ = 0;
};

}  // namespace

std::vector<ZipEntry> read_zip_directory(const MappedFile& file) { return Reader(file).read(); }

}  // namespace qb
