#pragma once
#include <ATen/ATen.h>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "core/format/gguf.h"
#include "core/format/safetensors.h"
#include "core/format/weights.h"

// Small model files built byte by byte, with a list of where each field lies, so that tests can damage every one.
namespace format_files {

struct Field {
  std::string what;
  size_t at, size;
  bool number;
};

class FileBytes {
 public:
  template <class T>
  FileBytes& number(T value, std::string what) {
    fields.push_back({std::move(what), bytes.size(), sizeof(T), true});
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
    return *this;
  }
  FileBytes& raw(std::string_view text, std::string what) {
    if (!text.empty()) fields.push_back({std::move(what), bytes.size(), text.size(), false});
    bytes += text;
    return *this;
  }
  // GGUF's string: length, then bytes.
  FileBytes& text(std::string_view text, const std::string& what) { return number(uint64_t{text.size()}, what + " (length)").raw(text, what); }
  FileBytes& pad(size_t alignment) {
    bytes.append((alignment - bytes.size() % alignment) % alignment, '\0');
    return *this;
  }

  std::string bytes;
  std::vector<Field> fields;
  size_t header_end = 0;
};

// In place: emptying a file first would make ext4 flush it on every close, and tests write thousands.
inline void write_file(const std::filesystem::path& path, std::string_view bytes) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  const bool written = fd >= 0 && ::pwrite(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()) &&
                       ::ftruncate(fd, static_cast<off_t>(bytes.size())) == 0;
  if (fd >= 0) ::close(fd);
  if (!written) throw std::runtime_error("the test cannot write " + path.string());
}

// Data that differ from byte to byte, yet are finite as half floats.
inline std::string pattern(size_t bytes, int seed) {
  std::string data(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<char>((i * 7 + static_cast<size_t>(seed) * 31) % 59);
  return data;
}

struct GgufTensor {
  std::string name;
  std::vector<uint64_t> dims;  // ggml's order, fastest first
  uint32_t type;
  std::string data;
};

inline std::vector<GgufTensor> sample_tensors() {
  return {{"a.weight", {8, 4}, 0, pattern(128, 1)},   {"b.weight", {32, 2}, 2, pattern(36, 2)}, {"empty", {4, 0}, 1, ""},
          {"scalar", {}, 0, pattern(4, 3)},           {"k.weight", {256}, 14, pattern(210, 4)}, {"h", {5, 1, 3, 2}, 30, pattern(60, 5)}};
}

// Metadata of every type, then the tensors.
inline FileBytes gguf_file(const std::vector<GgufTensor>& tensors, uint32_t version = 3, uint32_t alignment = 32) {
  FileBytes file;
  file.raw("GGUF", "magic").number(version, "version").number(uint64_t{tensors.size()}, "tensor count").number(uint64_t{16}, "key count");
  const auto key = [&](const std::string& name, uint32_t type) -> FileBytes& { return file.text(name, "key " + name).number(type, "type of " + name); };
  key("general.architecture", 8).text("llama", "general.architecture");
  key("general.alignment", 4).number(alignment, "general.alignment");
  key("x.u8", 0).number(uint8_t{200}, "x.u8");
  key("x.i8", 1).number(int8_t{-7}, "x.i8");
  key("x.u16", 2).number(uint16_t{60000}, "x.u16");
  key("x.i16", 3).number(int16_t{-300}, "x.i16");
  key("x.i32", 5).number(int32_t{-70000}, "x.i32");
  key("x.f32", 6).number(1.5f, "x.f32");
  key("x.bool", 7).number(uint8_t{1}, "x.bool");
  key("x.u64", 10).number(uint64_t{1} << 40, "x.u64");
  key("x.i64", 11).number(-(int64_t{1} << 40), "x.i64");
  key("x.f64", 12).number(-0.25, "x.f64");
  key("x.texts", 9).number(uint32_t{8}, "x.texts elements' type").number(uint64_t{2}, "x.texts count").text("ab", "x.texts 0").text("", "x.texts 1");
  key("x.ints", 9).number(uint32_t{5}, "x.ints elements' type").number(uint64_t{3}, "x.ints count");
  for (int32_t v : {3, -4, 5}) file.number(v, "x.ints element");
  key("x.reals", 9).number(uint32_t{6}, "x.reals elements' type").number(uint64_t{2}, "x.reals count").number(0.5f, "x.reals 0").number(-2.0f, "x.reals 1");
  key("x.flags", 9).number(uint32_t{7}, "x.flags elements' type").number(uint64_t{2}, "x.flags count").number(uint8_t{1}, "x.flags 0").number(uint8_t{0}, "x.flags 1");
  uint64_t offset = 0;
  for (const auto& tensor : tensors) {
    file.text(tensor.name, "name of " + tensor.name).number(static_cast<uint32_t>(tensor.dims.size()), "dimensions of " + tensor.name);
    for (uint64_t d : tensor.dims) file.number(d, "a dimension of " + tensor.name);
    file.number(tensor.type, "type of " + tensor.name).number(offset, "offset of " + tensor.name);
    offset += (tensor.data.size() + alignment - 1) / alignment * alignment;
  }
  file.header_end = file.bytes.size();
  file.pad(alignment);
  const size_t data_start = file.bytes.size();
  for (const auto& tensor : tensors) {
    file.bytes.append((alignment - (file.bytes.size() - data_start) % alignment) % alignment, '\0');
    file.bytes += tensor.data;
  }
  return file;
}

inline FileBytes safetensors_file(std::string_view header, size_t data_bytes) {
  FileBytes file;
  file.number(uint64_t{header.size()}, "header length").raw(header, "header");
  file.header_end = file.bytes.size();
  file.bytes += pattern(data_bytes, 6);
  return file;
}

inline FileBytes sample_safetensors() {
  return safetensors_file(R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                          R"("e":{"dtype":"F16","shape":[0,4],"data_offsets":[24,24]},"s":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},)"
                          R"("o":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[26,29]},"u":{"dtype":"I64","shape":[1,2],"data_offsets":[29,45]}}  )",
                          45);
}

// What torch.save writes of two tensors that share a storage, and of one of its own. The header for damage is the pickle.
inline FileBytes sample_torch() {
  const auto text = [](std::string_view value) { return "X" + std::string{static_cast<char>(value.size()), 0, 0, 0} + std::string(value); };
  const auto number = [](int value) { return "K" + std::string(1, static_cast<char>(value)); };
  const auto tensor = [&](const std::string& type, const std::string& key, int count, const std::string& place) {
    return "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\n" + type + "\n" + text(key) + text("cpu") + number(count) + "tQ" + place + "\x89" "ccollections\nOrderedDict\n)RtR";
  };
  std::string pickle = "\x80\2}q";
  pickle += std::string(1, 0) + "(";
  pickle += text("a") + tensor("FloatStorage", "0", 6, number(0) + number(2) + number(3) + "\x86" + number(3) + number(1) + "\x86");
  pickle += text("b") + tensor("FloatStorage", "0", 6, number(1) + number(2) + number(2) + "\x86" + number(1) + number(3) + "\x86");
  pickle += text("c") + tensor("BFloat16Storage", "1", 4, number(1) + number(3) + "\x85" + number(1) + "\x85");
  pickle += "u.";
  FileBytes file;
  std::string directory;
  const std::pair<std::string, std::string> entries[] = {{"m/data.pkl", pickle}, {"m/byteorder", "little"}, {"m/data/0", pattern(24, 1)}, {"m/data/1", pattern(8, 2)}, {"m/version", "3\n"}};
  const auto little = [](uint64_t value, int bytes) {
    std::string made;
    for (int i = 0; i < bytes; ++i) made += static_cast<char>(value >> (8 * i));
    return made;
  };
  for (const auto& [name, data] : entries) {
    const std::string sizes = little(0, 12) + little(data.size(), 4) + little(data.size(), 4) + little(name.size(), 2);
    directory += little(0x02014b50, 4) + little(0, 2) + sizes.substr(0, 2) + little(0, 8) + sizes.substr(8) + little(0, 12) + little(file.bytes.size(), 4) + name;
    file.bytes += little(0x04034b50, 4) + sizes.substr(0, 10) + sizes.substr(8) + little(0, 2) + name + data;
    if (name == "m/data.pkl") file.header_end = file.bytes.size();
  }
  const size_t at = file.bytes.size();
  file.bytes += directory + little(0x06054b50, 4) + little(0, 4) + little(5, 2) + little(5, 2) + little(directory.size(), 4) + little(at, 4) + little(0, 2);
  return file;
}

inline qb::TensorSourcePtr open_any(const std::filesystem::path& path) {
  if (path.extension() == ".gguf") return qb::GgufFile::open(path);
  return qb::open_weights(path);
}

// What all tensors hold, in the order of their data in the file.
inline std::string all_data(const qb::TensorSource& source) {
  std::vector<const qb::TensorInfo*> order;
  for (const auto& info : source.tensors()) order.push_back(&info);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return std::pair(a->file, a->offset) < std::pair(b->file, b->offset); });
  std::string data;
  for (const auto* info : order) {
    const at::Tensor tensor = source.read(info->name).contiguous();
    if (tensor.nbytes() > 0) data.append(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
  }
  return data;
}

// Opens and reads everything. "" and the data in `data` if that worked, the message of the InputError if not; any other
// exception goes to the test, which fails.
inline std::string error_of(const std::filesystem::path& path, std::string* data = nullptr) {
  try {
    const auto source = open_any(path);
    std::string all = all_data(*source);
    if (data) *data = std::move(all);
    return "";
  } catch (const qb::InputError& error) {
    return error.what();
  }
}

// A message is one line, not long, and names the file.
inline bool is_clear(const std::string& message, const std::filesystem::path& path) {
  return message.find(path.filename().string()) != std::string::npos && message.size() < 700 &&
         std::none_of(message.begin(), message.end(), [](unsigned char c) { return c < 0x20; });
}

// Other values for a field: single bits, neighbours, extremes.
inline std::vector<std::string> damaged_values(const std::string& original, bool number) {
  std::vector<std::string> values;
  for (size_t bit = 0; bit < original.size() * 8; ++bit) {
    values.push_back(original);
    values.back()[bit / 8] = static_cast<char>(values.back()[bit / 8] ^ (1 << bit % 8));
  }
  for (char fill : {'\0', '\xff'}) values.emplace_back(original.size(), fill);
  if (number && original.size() <= 8) {
    uint64_t value = 0;
    std::memcpy(&value, original.data(), original.size());
    for (uint64_t other : {value + 1, value - 1, value * 2, value + 256, uint64_t{1}, uint64_t{1} << 62}) {
      values.emplace_back(original.size(), '\0');
      std::memcpy(values.back().data(), &other, original.size());
    }
  }
  return values;
}

}  // namespace format_files
