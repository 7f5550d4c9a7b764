#include "core/text/pipeline_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/text/utf8.h"

namespace qb {
namespace {

// The end of the chain of pre-tokenizers.
struct ModelSink final : PieceSink {
  const TokenModel& model;
  TokenModel::Scratch& scratch;
  std::vector<int32_t>& ids;
  ModelSink(const TokenModel& m, TokenModel::Scratch& s, std::vector<int32_t>& out) : model(m), scratch(s), ids(out) {}
  void take(std::string_view piece, bool) override { model.tokenize(piece, scratch, ids); }
};

}  // namespace

PipelineTokenizer::PipelineTokenizer(Parts parts) : parts_(std::move(parts)) {
  size_ = parts_.model->vocabulary().end();
  for (const AddedToken& t : parts_.added.all()) size_ = std::max<int64_t>(size_, t.id + int64_t{1});
}

std::unique_ptr<TokenModel::Scratch> PipelineTokenizer::borrow() const {
  {
    std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      auto scratch = std::move(idle_.back());
      idle_.pop_back();
      return scratch;
    }
  }
  return parts_.model->make_scratch();
}

void PipelineTokenizer::give_back(std::unique_ptr<TokenModel::Scratch> scratch) const {
  std::lock_guard lock(mutex_);
  idle_.push_back(std::move(scratch));
}

std::vector<int32_t> PipelineTokenizer::encode(std::string_view text, bool add_special) const {
  std::string repaired;
  if (!utf8::valid(text)) {
    repaired = utf8::replace_invalid(text);
    text = repaired;
  }
  auto scratch = borrow();
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  ModelSink sink(*parts_.model, *scratch, ids);

  auto encode_normalized = [&](std::string_view segment, bool at_start) {
    if (!parts_.added.any(AddedTokens::Stage::normalized)) {
      parts_.pre_tokenization.split(segment, at_start, sink);
      return;
    }
    for (const auto& f : parts_.added.find(segment, AddedTokens::Stage::normalized)) {
      if (f.id) {
        ids.push_back(*f.id);
      } else {
        parts_.pre_tokenization.split(segment.substr(f.begin, f.end - f.begin), at_start && f.begin == 0, sink);
      }
    }
  };
  auto encode_segment = [&](std::string_view segment, bool at_start) {
    if (parts_.normalizers.empty()) {
      encode_normalized(segment, at_start);
      return;
    }
    std::string normalized(segment);
    for (const auto& n : parts_.normalizers) n->apply(normalized);
    encode_normalized(normalized, at_start);
  };
  if (!parts_.added.any(AddedTokens::Stage::raw)) {
    if (!text.empty()) encode_segment(text, true);
  } else {
    for (const auto& f : parts_.added.find(text, AddedTokens::Stage::raw)) {
      if (f.id) {
        ids.push_back(*f.id);
      } else {
        encode_segment(text.substr(f.begin, f.end - f.begin), f.begin == 0);
      }
    }
  }
  give_back(std::move(scratch));
  return add_special ? parts_.frame.around(std::move(ids)) : ids;
}

std::string PipelineTokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (int32_t id : ids) {
    const AddedToken* added = parts_.added.by_id(id);
    if (!added && !parts_.model->vocabulary().has(id)) continue;
    const std::string& spelling = added ? parts_.added.spelling(*added) : parts_.model->vocabulary().token(id);
    if (skip_special && added && parts_.added.is_special(spelling)) continue;
    tokens.push_back(spelling);
  }
  for (const auto& step : parts_.decoder) step->apply(tokens);
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0 && parts_.decoder.empty()) out += ' ';
    out += tokens[i];
  }
  return out;
}

std::string PipelineTokenizer::token(int32_t id) const {
  const AddedToken* added = parts_.added.by_id(id);
  return added ? added->content : parts_.model->vocabulary().token(id);
}

std::optional<int32_t> PipelineTokenizer::id_of(std::string_view token) const {
  if (const AddedToken* added = parts_.added.by_content(token)) return added->id;
  return parts_.model->vocabulary().find(token);
}

std::string PipelineTokenizer::description() const { return fmt::format("{}, {} tokens", parts_.model->kind(), size_); }

}  // namespace qb
