#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace qb {

// What stands in a SentencePiece .model file, of which the library tells only a part (sentencepiece_model.proto).
struct SentencePieceModel {
  enum Type : int64_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  struct Piece {
    std::string text;
    float score = 0;
    int64_t type = normal;
  };
  std::vector<Piece> pieces;
  bool unigram = true;          // else BPE
  bool byte_fallback = false;
  int64_t unknown_id = 0;
  std::string unknown_piece = "<unk>", precompiled_map;

  // Throws InputError naming the file for one that is no such model, or neither Unigram nor BPE.
  static SentencePieceModel read(const std::filesystem::path& path);
};

}  // namespace qb
