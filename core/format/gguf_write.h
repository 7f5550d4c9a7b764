#pragma once
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/format/gguf.h"

// What readers of GGUF trip over, beside the layout:
// - llama.cpp keeps names in 64 bytes with a NUL: 63 are left. Tensors have at most 4 dimensions.
// - llama.cpp asks for keys by their exact type: numbers of the architecture are u32, real ones f32, switches bool; arrays of
//   numbers i32 (token_type) and f32 (scores). A u64 or an f64 there is refused at load. Numbers one a block may be an array of i32.
// - general.alignment, where it is written, must be u32; 32 is what holds without it.
// - Data follow each other in the order of the list, each padded to the alignment, the last one too: llama.cpp refuses a file
//   whose offsets leave holes.
// - A tensor's rows must divide into its type's blocks (32 or 256 values), of every slice of a stack of experts.
// - OpenVINO's reader knows Q4_0, Q4_1, Q4_K, Q6_K, Q8_0 and F16, but not F32 matrices, Q5_0, Q5_1 and IQ4_NL.
namespace qb {

// Metadata in writing order, each value with the type it has on disk.
class GgufMetadata {
 public:
  void add(const std::string& key, GgufValue value);  // replaces a value that is there
  void u32(const std::string& key, int64_t value) { add(key, {value, GgufType::u32}); }
  void u64(const std::string& key, int64_t value) { add(key, {value, GgufType::u64}); }
  void f32(const std::string& key, double value) { add(key, {static_cast<double>(static_cast<float>(value)), GgufType::f32}); }
  void boolean(const std::string& key, bool value) { add(key, {value, GgufType::boolean}); }
  void text(const std::string& key, std::string value) { add(key, {std::move(value), GgufType::text}); }
  void texts(const std::string& key, std::vector<std::string> values) { add(key, {std::move(values), GgufType::text}); }
  void i32s(const std::string& key, std::vector<int64_t> values) { add(key, {std::move(values), GgufType::i32}); }
  void f32s(const std::string& key, std::vector<double> values);
  void booleans(const std::string& key, std::vector<bool> values) { add(key, {std::move(values), GgufType::boolean}); }

  const GgufValue* find(const std::string& key) const;  // nullptr when absent
  const std::vector<std::pair<std::string, GgufValue>>& all() const { return values_; }

 private:
  std::vector<std::pair<std::string, GgufValue>> values_;
};

// Streams a GGUF v3 file: metadata and the list of tensors at once, then their bytes in the order of the list. Nothing stands
// at `path` before commit(); without it nothing is left.
class GgufWriter {
 public:
  // Of each tensor name, dtype and shape (torch's order) count; offset and bytes are filled in. Throws InternalError naming the
  // tensor or key: given twice, a name of more than 63 bytes, a type or shape the format cannot hold, a value that its type on
  // disk cannot; ResourceError naming the path where the disk refuses.
  GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata, std::vector<TensorInfo> tensors);
  ~GgufWriter();
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  // The next bytes of a tensor, whole or in pieces. Throws InternalError where another one's turn is, or for too many.
  void write(const std::string& tensor, std::span<const std::byte> bytes);
  // Throws InternalError naming the first tensor whose bytes are not all there.
  void commit();

 private:
  std::filesystem::path path_;
  std::vector<TensorInfo> tensors_;
  std::unique_ptr<class AtomicWriter> file_;
  size_t current_ = 0;     // the tensor whose turn it is
  uint64_t written_ = 0;   // of its bytes
};

}  // namespace qb
