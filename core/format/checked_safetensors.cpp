#include "core/format/checked_safetensors.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/files.h"

namespace qb {
namespace {

constexpr const char *kChecksums = "checksums", *kFormat = "format";
const std::string kMetadata;  // no tensor has an empty name

std::string hash_of(const std::string& name, const at::Tensor& tensor) {
  Hasher hasher;
  hasher.update(name);
  hasher.update(std::string_view(at::toString(tensor.scalar_type())));
  for (int64_t size : tensor.sizes()) hasher.update(size);
  hasher.update({static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
  return hasher.hex();
}

std::string hash_of(const std::map<std::string, std::string>& metadata) {
  Hasher hasher;
  for (const auto& [key, value] : metadata) {
    if (key == kChecksums || key == kFormat) continue;
    hasher.update(key);
    hasher.update(value);
  }
  return hasher.hex();
}

class Checked final : public TensorSource {
 public:
  Checked(TensorSourcePtr stored, std::map<std::string, std::string> hashes) : stored_(std::move(stored)), hashes_(std::move(hashes)) {
    for (const TensorInfo& info : stored_->tensors())
      if (!hashes_.contains(info.name)) throw InputError(fmt::format("{}: tensor \"{}\" has no checksum; the file is damaged", place(), info.name));
  }
  const std::vector<TensorInfo>& tensors() const override { return stored_->tensors(); }
  const std::vector<std::filesystem::path>& files() const override { return stored_->files(); }
  const TensorInfo* find(const std::string& name) const override { return stored_->find(name); }
  at::Tensor read(const std::string& name) const override {
    at::Tensor tensor = stored_->read(name);
    if (const auto& expected = hashes_.at(name), found = hash_of(name, tensor); found != expected)
      throw InputError(fmt::format("{}: tensor \"{}\" is damaged: its checksum is {}, expected {}", place(), name, found, expected));
    return tensor;
  }

 private:
  std::string place() const { return stored_->files().front().string(); }
  TensorSourcePtr stored_;
  std::map<std::string, std::string> hashes_;
};

}  // namespace

void write_checked_safetensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                               const std::map<std::string, std::string>& metadata) {
  auto plain = tensors;
  std::map<std::string, std::string> hashes{{kMetadata, hash_of(metadata)}};
  for (auto& [name, tensor] : plain) {
    tensor = tensor.to(at::kCPU).contiguous();
    hashes[name] = hash_of(name, tensor);
  }
  auto all = metadata;
  all[kChecksums] = nlohmann::json(hashes).dump();
  write_safetensors(path, plain, all);
}

CheckedSafetensors open_checked_safetensors(const std::filesystem::path& file) {
  CheckedSafetensors opened{open_safetensors(file), read_safetensors_metadata(file), false};
  const auto written = opened.metadata.find(kChecksums);
  if (written == opened.metadata.end()) return opened;
  const auto json = nlohmann::json::parse(written->second, nullptr, false);
  std::map<std::string, std::string> hashes;
  if (json.is_object())
    for (const auto& [name, hash] : json.items())
      if (hash.is_string()) hashes[name] = hash.get<std::string>();
  const auto own = hashes.find(kMetadata);
  if (own == hashes.end() || own->second != hash_of(opened.metadata)) throw InputError(fmt::format("{}: its metadata are damaged: the checksum does not fit", file.string()));
  opened.metadata.erase(written);
  opened.checked = true;
  opened.tensors = std::make_shared<Checked>(std::move(opened.tensors), std::move(hashes));
  return opened;
}

std::string damage_of(const std::filesystem::path& checked_file) {
  try {
    const CheckedSafetensors opened = open_checked_safetensors(checked_file);
    for (const TensorInfo& info : opened.tensors->tensors()) opened.tensors->read(info.name);
    return {};
  } catch (const InputError& e) {
    return e.what();
  }
}

}  // namespace qb
