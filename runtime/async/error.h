// Errors of the whole library. Two kinds, never mixed:
//
//  * an exception derived from Error means "this run (or this save) fails" and carries everything a
//    person needs to act: the path, the key or the option, and what to do;
//  * a Result<T> is the answer of a decoder, whose input is data that may well be bad. A Fault says
//    where in the input and what is wrong; the caller decides whether that ends anything.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace millrace {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A wrong option, key or value, found before training starts where it can be known then.
class ConfigError : public Error {
 public:
  // `key` is the dotted path of the option, `nearest` the closest valid name or empty.
  ConfigError(std::string key, const std::string& problem, std::string nearest = {});
  const std::string& key() const noexcept { return key_; }
  const std::string& nearest() const noexcept { return nearest_; }

 private:
  std::string key_;
  std::string nearest_;
};

// A storage operation failed. what() is "<operation> <path>: <errno text>[: detail]".
class StorageError : public Error {
 public:
  StorageError(std::string operation, std::string path, int error_number,
               const std::string& detail = {});
  const std::string& operation() const noexcept { return operation_; }
  const std::string& path() const noexcept { return path_; }
  int error_number() const noexcept { return error_number_; }

 private:
  std::string operation_;
  std::string path_;
  int error_number_;
};

// A checkpoint cannot be used or made: unreadable, foreign, or of another model.
class CheckpointError : public Error {
 public:
  CheckpointError(std::string path, const std::string& problem);
  const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

// What a decoder found wrong. `where` is a byte offset, an entry or a key; `what` a full sentence.
struct Fault {
  enum class Kind { truncated, corrupt, foreign, limit };
  Kind kind = Kind::corrupt;
  std::string where;
  std::string what;

  std::string text() const { return where.empty() ? what : where + ": " + what; }
};

// The value, or why there is none. Converts from either, so decoders can `return Fault{...}`.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT
  Result(Fault fault) : state_(std::in_place_index<1>, std::move(fault)) {}  // NOLINT

  bool ok() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return ok(); }
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  const Fault& fault() const { return std::get<1>(state_); }
  T* operator->() { return &value(); }
  T& operator*() & { return value(); }

 private:
  std::variant<T, Fault> state_;
};

// The candidate closest to `name` by edit distance, or empty when none is near enough to suggest.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace millrace
