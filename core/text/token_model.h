#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/vocabulary.h"

namespace qb {

// What cuts one piece of text into tokens of a vocabulary.
class TokenModel {
 public:
  // Buffers and caches of one encoding at a time; a model is immutable, its scratch is not shared between threads.
  class Scratch {
   public:
    virtual ~Scratch() = default;
  };
  virtual ~TokenModel() = default;
  virtual std::unique_ptr<Scratch> make_scratch() const = 0;
  // Appends the ids of one piece.
  virtual void tokenize(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
  virtual std::string kind() const = 0;  // "byte-level BPE"
};

}  // namespace qb
