#include "core/text/chat_template.h"

#include <fmt/format.h>
#include <json.h>
#include <jinja/lexer.h>
#include <jinja/parser.h>
#include <jinja/runtime.h>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/format/gguf.h"
#include "core/format/model_place.h"
#include "core/text/json_field.h"
#include "core/text/model_files.h"
#include "core/text/tokenizer.h"

namespace qb {
namespace {
namespace fs = std::filesystem;

constexpr std::time_t kToday = 1721995200;  // 2024-07-26 12:00 UTC

// What transformers hands a template beside the messages: every special token that has a name of its own.
nlohmann::ordered_json special_tokens_of(const fs::path& folder) {
  nlohmann::ordered_json tokens = nlohmann::ordered_json::object();
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"}) {
    if (!fs::exists(folder / name)) continue;
    const nlohmann::json document = read_json(folder / name);
    for (const auto& [key, value] : document.items()) {
      if (!key.ends_with("_token")) continue;
      if (value.is_string()) tokens[key] = value.get<std::string>();
      if (value.is_object() && value.contains("content") && value["content"].is_string()) tokens[key] = value["content"].get<std::string>();
    }
  }
  return tokens;
}

// A string, or a list of named templates of which "default" is the one for plain conversations; empty: neither.
std::string template_of(const nlohmann::json& given) {
  if (given.is_string()) return given.get<std::string>();
  if (given.is_array())
    for (const auto& item : given)
      if (item.is_object() && item.value("name", nlohmann::json()) == "default" && item.contains("template") && item["template"].is_string()) return item["template"].get<std::string>();
  return "";
}

}  // namespace

std::shared_ptr<const ChatTemplate> ChatTemplate::load(const fs::path& model, const Tokenizer& tokenizer) {
  if (!fs::is_directory(model) && is_gguf(model)) {
    const auto file = GgufFile::open(model);
    const auto source = file->text("tokenizer.chat_template");
    if (!source) return nullptr;
    nlohmann::ordered_json tokens = nlohmann::ordered_json::object();
    if (tokenizer.bos()) tokens["bos_token"] = tokenizer.token(*tokenizer.bos());
    if (tokenizer.eos()) tokens["eos_token"] = tokenizer.token(*tokenizer.eos());
    return std::make_shared<ChatTemplate>(*source, model.string() + ": tokenizer.chat_template", tokens);
  }
  const fs::path folder = fs::is_directory(model) ? model : model.parent_path();
  if (const auto own = folder / "chat_template.jinja"; fs::exists(own))
    return std::make_shared<ChatTemplate>(read_text(own, uint64_t{16} << 20), own.string(), special_tokens_of(folder));
  const auto config = folder / "tokenizer_config.json";
  if (!fs::exists(config)) return nullptr;
  const nlohmann::json document = read_json(config);
  const JsonField root(document, config.string());
  if (!root.has("chat_template")) return nullptr;
  return std::make_shared<ChatTemplate>(template_of(root.at("chat_template").value()), root.at("chat_template").where(), special_tokens_of(folder));
}

ChatTemplate::ChatTemplate(std::string source, std::string origin, const nlohmann::ordered_json& special_tokens)
    : source_(std::move(source)), origin_(std::move(origin)), special_tokens_(std::make_unique<nlohmann::ordered_json>(special_tokens)) {}

ChatTemplate::~ChatTemplate() = default;

std::string ChatTemplate::render(const nlohmann::ordered_json& messages) const {
  if (source_.empty()) throw InputError(origin_ + ": expected a chat template, or a list of them of which one is named 'default'");
  if (!program_) {
    try {
      program_ = std::make_unique<jinja::program>(jinja::parse_from_tokens(jinja::lexer().tokenize(source_)));
    } catch (const std::exception& e) {
      throw InputError(fmt::format("{}: this chat template cannot be read: {}", origin_, e.what()));
    }
  }
  try {
    jinja::context context(source_);
    context.current_time = kToday;
    nlohmann::ordered_json input = *special_tokens_;
    input["messages"] = messages;
    input["tools"] = nullptr;
    input["documents"] = nullptr;
    input["add_generation_prompt"] = false;
    jinja::global_from_json(context, input, false);
    jinja::runtime runtime(context);
    return jinja::runtime::gather_string_parts(runtime.execute(*program_))->as_string().str();
  } catch (const std::exception& e) {
    throw InputError(fmt::format("the chat template of {} does not take this conversation: {}", origin_, e.what()));
  }
}

}  // namespace qb
