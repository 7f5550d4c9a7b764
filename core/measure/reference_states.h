#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "core/base/files.h"

namespace qb {

// What a reference model's predictions on a text's windows follow from, kept in a file: what its head multiplies, float32, of each window
// all but the last token. For SmolLM2-135M that is 1/43 of what 16-bit log-probabilities take, for an 8B model of 128k tokens 1/16, and the
// logits that the head makes of it are the model's own: the format has no error. (Top probabilities and tail mass are off by percents of the divergence.)
//
// A header, then a record for each window with its checksum, written as windows are computed: whoever opens the file after a kill goes on
// behind the last whole record, and one with fewer windows serves a request for more as far as it goes.
class ReferenceStates {
 public:
  struct Key {
    std::string model, tokens;        // hashes: of the model, and of the text's token ids with their cut into windows
    int64_t seq_len = 0, width = 0;
  };

  // In `folder`, which is made if need be; the file's name follows from the key. Reads every record that is there. What is damaged is left
  // out, with all behind it. ResourceError where the folder cannot be made.
  ReferenceStates(const std::filesystem::path& folder, const Key& key);
  ~ReferenceStates();
  ReferenceStates(const ReferenceStates&) = delete;
  ReferenceStates& operator=(const ReferenceStates&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path lease() const;            // of the one process that may append
  int64_t windows() const { return windows_; }    // whole ones
  const std::string& damage() const { return damage_; }  // what was left out and why, or empty
  void refresh();                                 // looks again: another process may have appended

  // For who holds the lease: removes what is damaged, then appends windows in order. ResourceError naming the file (full disk).
  void begin_appending(int64_t expected_windows);
  void append(const at::Tensor& states);          // [seq_len − 1, width] float32
  void end_appending();                           // all of it is on disk, and can be read

  at::Tensor window(int64_t index) const;         // [seq_len − 1, width] float32, mapped: not to be written to

 private:
  uint64_t record_bytes() const;
  uint64_t offset(int64_t window) const;
  std::string header() const;
  void put(const void* data, uint64_t bytes);
  std::filesystem::path path_;
  Key key_;
  int64_t windows_ = 0;
  std::string damage_;
  bool tail_only_ = false;  // of the damage: a record that was not written to its end
  std::shared_ptr<const MappedFile> file_;
  int fd_ = -1;
};

}  // namespace qb
