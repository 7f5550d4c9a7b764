#pragma once
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace jinja {
struct program;
}

namespace qb {

class Tokenizer;

// A model's chat template, which turns a conversation into text, as transformers' apply_chat_template without tools and
// without a generation prompt. Where a template asks for today's date it is told 26 July 2024 (the day that Llama 3's
// own template falls back to), so that a recipe gives the same tokens every day. Immutable, not for several threads at once.
class ChatTemplate {
 public:
  // Of a model folder (chat_template.jinja, else tokenizer_config.json's chat_template) or a .gguf file; null where it has
  // none. One that cannot be read is told when a conversation needs it: plain texts do not.
  static std::shared_ptr<const ChatTemplate> load(const std::filesystem::path& model, const Tokenizer& tokenizer);

  // `origin` stands in errors. special_tokens: an object of the texts that a template knows as bos_token, eos_token …
  ChatTemplate(std::string source, std::string origin, const nlohmann::ordered_json& special_tokens);
  ~ChatTemplate();

  // Messages: an array of objects with role and content. Throws InputError with the template's own complaint, or naming
  // the file of a template that cannot be read.
  std::string render(const nlohmann::ordered_json& messages) const;
  const std::string& source() const { return source_; }

 private:
  std::string source_, origin_;
  std::unique_ptr<nlohmann::ordered_json> special_tokens_;
  mutable std::unique_ptr<jinja::program> program_;  // parsed when first needed
};

}  // namespace qb
