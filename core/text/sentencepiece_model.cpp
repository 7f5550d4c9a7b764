#include "core/text/sentencepiece_model.h"

#include <fmt/format.h>

#include <cstring>
#include <functional>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/text/utf8.h"

namespace qb {
namespace {

// One protobuf message: fields of number, wire type and content.
class Message {
 public:
  Message(std::string_view bytes, const std::string& origin) : bytes_(bytes), origin_(origin) {}

  struct Field {
    uint64_t number = 0, value = 0;  // of a varint or the bits of a fixed one
    std::string_view bytes;          // of a string or a message
  };

  void each(const std::function<void(const Field&)>& visit) {
    while (at_ < bytes_.size()) {
      Field field;
      const uint64_t tag = varint();
      field.number = tag >> 3;
      switch (tag & 7) {
        case 0: field.value = varint(); break;
        case 1: field.value = fixed(8); break;
        case 2: field.bytes = take(varint()); break;
        case 5: field.value = fixed(4); break;
        default: fail();
      }
      visit(field);
    }
  }

 private:
  [[noreturn]] void fail() const { throw InputError(fmt::format("{}: not a SentencePiece model", origin_)); }

  std::string_view take(uint64_t count) {
    if (count > bytes_.size() - at_) fail();
    const std::string_view out = bytes_.substr(at_, count);
    at_ += count;
    return out;
  }

  uint64_t varint() {
    uint64_t out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      out |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return out;
    }
    fail();
  }

  uint64_t fixed(size_t size) {
    uint64_t out = 0;
    std::memcpy(&out, take(size).data(), size);
    return out;
  }

  std::string_view bytes_;
  std::string origin_;
  size_t at_ = 0;
};

float real(uint64_t bits) {
  const auto low = static_cast<uint32_t>(bits);
  float out;
  std::memcpy(&out, &low, sizeof out);
  return out;
}

}  // namespace

SentencePieceModel SentencePieceModel::read(const std::filesystem::path& path) {
  const std::string origin = path.string(), bytes = read_text(path, uint64_t{1} << 30);
  SentencePieceModel model;
  int64_t kind = 1;
  Message(bytes, origin).each([&](const Message::Field& field) {
    if (field.number == 1) {
      Piece& piece = model.pieces.emplace_back();
      Message(field.bytes, origin).each([&](const Message::Field& f) {
        if (f.number == 1) piece.text = f.bytes;
        if (f.number == 2) piece.score = real(f.value);
        if (f.number == 3) piece.type = static_cast<int64_t>(f.value);
      });
      if (!utf8::valid(piece.text)) throw InputError(fmt::format("{}: piece {} is not UTF-8", origin, model.pieces.size() - 1));
    } else if (field.number == 2) {
      Message(field.bytes, origin).each([&](const Message::Field& f) {
        if (f.number == 3) kind = static_cast<int64_t>(f.value);
        if (f.number == 35) model.byte_fallback = f.value != 0;
        if (f.number == 40) model.unknown_id = static_cast<int32_t>(f.value);
        if (f.number == 45) model.unknown_piece = f.bytes;
      });
    } else if (field.number == 3) {
      Message(field.bytes, origin).each([&](const Message::Field& f) {
        if (f.number == 2) model.precompiled_map = f.bytes;
      });
    }
  });
  if (model.pieces.empty()) throw InputError(fmt::format("{}: not a SentencePiece model: it has no pieces", origin));
  if (kind != 1 && kind != 2) throw InputError(fmt::format("{}: a SentencePiece model of words or characters; expected Unigram or BPE", origin));
  model.unigram = kind == 1;
  return model;
}

}  // namespace qb
