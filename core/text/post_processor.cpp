#include "core/text/post_processor.h"

#include <fmt/format.h>

namespace qb {
namespace {

constexpr int64_t highest_id = INT32_MAX;

void add_template(const JsonField& f, SpecialFrame& frame) {
  const JsonField items = f.at("single").array();
  SpecialFrame own;
  bool text_seen = false;
  for (size_t i = 0; i < items.size(); ++i) {
    const JsonField item = items.at(i).object();
    if (item.has("Sequence")) {
      if (text_seen) item.fail("a template that repeats the text is not supported");
      text_seen = true;
      continue;
    }
    const std::string name = item.at("SpecialToken").at("id").text();
    const JsonField ids = f.at("special_tokens").at(name).at("ids").array();
    for (size_t k = 0; k < ids.size(); ++k)
      (text_seen ? own.after : own.before).push_back(static_cast<int32_t>(ids.at(k).integer(0, highest_id)));
  }
  own.drops_text = !text_seen;
  // What came before is what this template calls the text.
  if (own.drops_text) {
    frame = own;
    return;
  }
  frame.before.insert(frame.before.begin(), own.before.begin(), own.before.end());
  frame.after.insert(frame.after.end(), own.after.begin(), own.after.end());
}

int32_t named_id(const JsonField& pair) {
  if (pair.array().size() != 2) pair.fail("expected a token and its id");
  return static_cast<int32_t>(pair.at(1).integer(0, highest_id));
}

void add(const JsonField& f, SpecialFrame& frame) {
  const std::string type = f.object().at("type").text();
  if (type == "Sequence") {
    const JsonField list = f.at("processors").array();
    for (size_t i = 0; i < list.size(); ++i) add(list.at(i), frame);
  } else if (type == "TemplateProcessing") {
    add_template(f, frame);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    frame.before.insert(frame.before.begin(), named_id(f.at("cls")));
    frame.after.push_back(named_id(f.at("sep")));
  } else if (type != "ByteLevel") {  // which only moves offsets
    f.at("type").fail(fmt::format("the post-processor '{}' is not supported", type));
  }
}

}  // namespace

std::vector<int32_t> SpecialFrame::around(std::vector<int32_t> ids) const {
  if (drops_text) ids.clear();
  ids.insert(ids.begin(), before.begin(), before.end());
  ids.insert(ids.end(), after.begin(), after.end());
  return ids;
}

SpecialFrame make_special_frame(const JsonField& description) {
  SpecialFrame frame;
  if (!description.value().is_null()) add(description, frame);
  return frame;
}

}  // namespace qb
