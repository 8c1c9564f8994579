// Small binary records (hub history, loader position, hook states) through cereal's portable
// archive, with the one check cereal leaves to its user: a length may not exceed the bytes that are
// left.
//
//   RecordWriter out;  out(version, name, values);  std::string bytes = std::move(out).take();
//   RecordReader in(bytes);  in(version, name, values);   // throws RecordError
#pragma once

#include <cereal/archives/portable_binary.hpp>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "millrace/runtime/async/error.h"

namespace millrace {

class RecordError : public Error {
 public:
  using Error::Error;
};

class RecordWriter {
 public:
  template <class... T>
  void operator()(const T&... values) {
    (write(values), ...);
  }
  std::string take() && { return std::move(stream_).str(); }

 private:
  template <class T>
  void write(const T& value) {
    archive_(value);
  }
  void write(const std::string& value) {
    archive_(static_cast<std::uint64_t>(value.size()));
    archive_(cereal::binary_data(const_cast<char*>(value.data()), value.size()));
  }
  template <class T>
  void write(const std::vector<T>& values) {
    archive_(static_cast<std::uint64_t>(values.size()));
    for (const T& value : values) write(value);
  }

  std::ostringstream stream_{std::ios::binary};
  cereal::PortableBinaryOutputArchive archive_{stream_};
};

class RecordReader {
 public:
  explicit RecordReader(std::string_view bytes) try
      : size_(bytes.size()),
        stream_(std::string(bytes), std::ios::binary),
        archive_(stream_) {  // reads one byte
  } catch (const cereal::Exception& error) {
    throw RecordError(error.what());
  }

  template <class... T>
  void operator()(T&... values) {
    try {
      (read(values), ...);
    } catch (const cereal::Exception& error) {
      throw RecordError(error.what());
    }
  }

  // The count of a loop, of items that take at least `item` bytes each.
  std::size_t count(std::size_t item) {
    try {
      return length(item);
    } catch (const cereal::Exception& error) {
      throw RecordError(error.what());
    }
  }
  bool finished() { return stream_.peek() == std::istringstream::traits_type::eof(); }

 private:
  template <class T>
  void read(T& value) {
    archive_(value);
  }
  void read(std::string& value) {
    value.resize(length(1));
    archive_(cereal::binary_data(value.data(), value.size()));
  }
  template <class T>
  void read(std::vector<T>& values) {
    if constexpr (std::is_arithmetic_v<T>) {
      values.resize(length(sizeof(T)));
      for (T& value : values) read(value);
    } else {
      values.clear();  // and grows as its elements are really there
      for (std::size_t n = length(1); n > 0; --n) read(values.emplace_back());
    }
  }
  // A length of items that take at least `item` bytes each.
  std::size_t length(std::size_t item) {
    std::uint64_t count = 0;
    archive_(count);
    const auto left = size_ - static_cast<std::size_t>(stream_.tellg());
    if (count > left / item) {
      throw RecordError("a length of " + std::to_string(count) + " exceeds the " +
                        std::to_string(left) + " bytes left");
    }
    return static_cast<std::size_t>(count);
  }

  std::size_t size_;
  std::istringstream stream_;
  cereal::PortableBinaryInputArchive archive_;
};

}  // namespace millrace
