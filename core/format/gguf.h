#pragma once
#include <map>
#include <optional>
#include <span>
#include <variant>

#include "core/format/tensor_source.h"

namespace qb {

// Value types of metadata, as ggml's gguf.h numbers them.
enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

// Integers of every width are int64 (u64 above 2^63 refused), f32/f64 double.
// Large homogeneous arrays (tokens, scores) are kept as vectors of their element type.
struct GgufValue {
  std::variant<int64_t, double, bool, std::string, std::vector<int64_t>, std::vector<double>, std::vector<std::string>, std::vector<bool>> value;
  GgufType type = GgufType::i64;  // on disk; of an array its elements'
  bool operator==(const GgufValue&) const = default;
};

// A GGUF v2/v3 file, memory-mapped. Tensor names are the file's own ("blk.0.attn_q.weight").
class GgufFile final : public TensorSource {
 public:
  // Reads the header only. Throws InputError naming the file, the key or tensor and the byte offset.
  static std::shared_ptr<const GgufFile> open(const std::filesystem::path& path);
  // A file that is not written yet, as it would read: name, dtype and shape of the tensors count; only those with values can be read.
  static std::shared_ptr<const GgufFile> imagined(const std::filesystem::path& path, std::map<std::string, GgufValue> metadata, std::vector<TensorInfo> tensors,
                                                  std::map<std::string, at::Tensor> values);
  ~GgufFile() override;

  const std::map<std::string, GgufValue>& metadata() const;
  // Typed look-ups; nullopt when absent, InputError naming the key when it has another type.
  std::optional<int64_t> integer(const std::string& key) const;
  std::optional<double> real(const std::string& key) const;  // also takes an integer
  std::optional<bool> boolean(const std::string& key) const;
  std::optional<std::string> text(const std::string& key) const;
  const std::vector<std::string>* texts(const std::string& key) const;
  const std::vector<double>* reals(const std::string& key) const;
  const std::vector<int64_t>* integers(const std::string& key) const;

  const std::vector<TensorInfo>& tensors() const override;
  const std::vector<std::filesystem::path>& files() const override;
  const TensorInfo* find(const std::string& name) const override;
  at::Tensor read(const std::string& name) const override;
  // A tensor's bytes as they are stored, mapped: uint8, a row for each of its rows (a matrix of one row where it has no two dimensions).
  at::Tensor bytes(const std::string& name) const;

 private:
  GgufFile();
  struct Content;
  std::unique_ptr<Content> content_;
};

// ggml's number of a type; nullopt where ggml has no such type.
std::optional<uint32_t> ggml_type_of(DType dtype);

// Dequantizes `elements` values of a ggml block format into out (float32). Bytes must hold exactly those blocks.
void dequantize_ggml(DType dtype, std::span<const std::byte> bytes, float* out, int64_t elements);

}  // namespace qb
