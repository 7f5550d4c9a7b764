#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace qb {

// What went wrong, for the caller that must choose an exit code or a remedy.
enum class ErrorKind {
  input,      // a file, tensor or text the user gave is wrong or missing
  recipe,     // a recipe key or value is wrong
  resource,   // memory, disk, device
  cancelled,  // the user asked to stop
  internal,   // a broken promise of our own
};

// The one family of exceptions. The message names the file, tensor, key or layer, what was found and what was expected.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

struct InputError : Error {
  explicit InputError(const std::string& message) : Error(ErrorKind::input, message) {}
};
struct ResourceError : Error {
  explicit ResourceError(const std::string& message) : Error(ErrorKind::resource, message) {}
};
struct Cancelled : Error {
  Cancelled() : Error(ErrorKind::cancelled, "cancelled") {}
};
struct InternalError : Error {
  explicit InternalError(const std::string& message) : Error(ErrorKind::internal, message) {}
};

// A mistake in a recipe. `key` is a dotted path ("scheme.weight.bits"); line and column are 1-based, 0 if unknown.
class RecipeError : public Error {
 public:
  RecipeError(std::string file, int line, int column, std::string key, const std::string& what);
  const std::string& file() const noexcept { return file_; }
  const std::string& key() const noexcept { return key_; }
  int line() const noexcept { return line_; }
  int column() const noexcept { return column_; }
  const std::string& detail() const noexcept { return detail_; }

 private:
  std::string file_, key_, detail_;
  int line_, column_;
};

}  // namespace qb
