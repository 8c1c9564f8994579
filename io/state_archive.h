// StateWriter, StateReader: cereal archives for the states of users' hooks and objects. Whatever
// cereal can serialize goes in; what comes out may be damaged or hostile.
//
// cereal itself believes every length it reads: eleven bytes can make it allocate gigabytes. This
// reader is bounded by its record. A count is compared with the bytes that are left before anything
// is allocated: numbers and text exactly, other elements as at least one byte each, and sequences
// grow only as their elements are really there. Memory is therefore at most that of a state which
// fills the record. Nesting is bounded too, so that no input exhausts the stack. Every violation is
// a RecordError or a cereal::Exception.
//
// Bytes: numbers little-endian as they are in memory, counts as 64 bits, no tags, no padding. Use
// fixed-width integers. Not supported, because their readers trust the bytes: two shared pointers
// to one object (refused when it is written) and polymorphic pointers (do not compile or are
// refused).
#pragma once

#include <bit>
#include <cereal/cereal.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <forward_list>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <valarray>
#include <vector>

#include "millrace/io/record_stream.h"

namespace millrace {

static_assert(std::endian::native == std::endian::little, "records are little-endian");

class StateWriter : public cereal::OutputArchive<StateWriter, cereal::AllowEmptyClassElision> {
 public:
  // Appends to `out`, which outlives the writer.
  explicit StateWriter(std::string& out) : OutputArchive(this), out_(out) {}

  void put(const void* data, std::size_t size) {
    out_.append(static_cast<const char*>(data), size);
  }

  // For cereal: called for every shared pointer.
  std::uint32_t registerSharedPointer(const std::shared_ptr<const void>& pointer) {
    const std::uint32_t id = OutputArchive::registerSharedPointer(pointer);
    if (id != 0 && (id & cereal::detail::msb_32bit) == 0) {
      throw RecordError("two shared pointers to one object cannot be saved");
    }
    return id;
  }

 private:
  std::string& out_;
};

namespace detail {

// The containers that StateReader fills itself.
template <class T>
inline constexpr bool is_contiguous = false;  // of numbers
template <class T, class A>
inline constexpr bool is_contiguous<std::vector<T, A>> =
    std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;
template <class T, class Traits, class A>
inline constexpr bool is_contiguous<std::basic_string<T, Traits, A>> = true;
template <class T>
inline constexpr bool is_contiguous<std::valarray<T>> = std::is_arithmetic_v<T>;

template <class T>
inline constexpr bool is_sequence = false;
template <class T, class A>
inline constexpr bool is_sequence<std::vector<T, A>> = !std::is_arithmetic_v<T>;
template <class T, class A>
inline constexpr bool is_sequence<std::deque<T, A>> = true;
template <class T, class A>
inline constexpr bool is_sequence<std::list<T, A>> = true;

template <class T>
inline constexpr bool is_forward_list = false;
template <class T, class A>
inline constexpr bool is_forward_list<std::forward_list<T, A>> = true;

template <class T>
inline constexpr bool is_unordered_set = false;
template <class... T>
inline constexpr bool is_unordered_set<std::unordered_set<T...>> = true;
template <class... T>
inline constexpr bool is_unordered_set<std::unordered_multiset<T...>> = true;

}  // namespace detail

class StateReader : public cereal::InputArchive<StateReader, cereal::AllowEmptyClassElision> {
 public:
  // Steps of cereal's descent; a pointer to an object, for one, is four of them.
  static constexpr int kDepthLimit = 1000;

  // `bytes` outlive the reader.
  explicit StateReader(std::string_view bytes) : InputArchive(this), bytes_(bytes) {}

  std::size_t left() const noexcept { return bytes_.size(); }

  // These hide cereal's own: all that is read, nested values too, comes through here.
  template <class... T>
  StateReader& operator()(T&&... values) {
    (read(values), ...);
    return *this;
  }
  template <class T>
  StateReader& operator&(T&& value) {
    return (*this)(value);
  }
  template <class T>
  StateReader& operator>>(T&& value) {
    return (*this)(value);
  }

  void take(void* data, std::size_t size) {
    if (size > left()) {
      throw RecordError(std::to_string(size) + " bytes are needed and " + std::to_string(left()) +
                        " are left");
    }
    std::memcpy(data, bytes_.data(), size);
    bytes_.remove_prefix(size);
  }

  // A count of elements of at least `least` bytes each.
  std::size_t count(std::size_t least = 1) {
    std::uint64_t count = 0;
    take(&count, sizeof count);
    if (count > left() / least) {
      throw RecordError("a count of " + std::to_string(count) + " exceeds the " +
                        std::to_string(left()) + " bytes left");
    }
    return static_cast<std::size_t>(count);
  }

  // For cereal: it would cast what the number names to the type it wants, whatever that is.
  std::shared_ptr<void> getSharedPointer(std::uint32_t id) {
    if (id != 0) throw RecordError("a shared pointer refers to another one");
    return nullptr;
  }

 private:
  template <class T>
  void read(T& value) {
    if (++depth_ > kDepthLimit) throw RecordError("values are nested too deeply");
    if constexpr (detail::is_contiguous<T>) {
      using Number = typename T::value_type;
      value.resize(count(sizeof(Number)));
      if (value.size() > 0) take(&value[0], value.size() * sizeof(Number));
    } else if constexpr (detail::is_sequence<T>) {
      value.clear();
      for (std::size_t n = count(); n > 0; --n) {
        value.emplace_back();
        read(value.back());
      }
    } else if constexpr (detail::is_forward_list<T>) {
      value.clear();
      auto last = value.before_begin();
      for (std::size_t n = count(); n > 0; --n) read(*(last = value.emplace_after(last)));
    } else if constexpr (detail::is_unordered_set<T>) {
      value.clear();
      for (std::size_t n = count(); n > 0; --n) {
        typename T::value_type element;
        read(element);
        value.insert(std::move(element));
      }
    } else {
      InputArchive::operator()(value);
    }
    --depth_;  // after an exception the reader is not used any more
  }

  std::string_view bytes_;
  int depth_ = 0;
};

// ---- how the two meet cereal's types

template <class T>
std::enable_if_t<std::is_arithmetic_v<T>> CEREAL_SAVE_FUNCTION_NAME(StateWriter& out,
                                                                    const T& value) {
  static_assert(!std::is_same_v<T, long double>, "a long double has no fixed size");
  out.put(&value, sizeof value);
}
template <class T>
std::enable_if_t<std::is_arithmetic_v<T>> CEREAL_LOAD_FUNCTION_NAME(StateReader& in, T& value) {
  static_assert(!std::is_same_v<T, long double>, "a long double has no fixed size");
  if constexpr (std::is_same_v<T, bool>) {
    std::uint8_t byte = 0;
    in.take(&byte, 1);
    if (byte > 1) throw RecordError("a truth value is neither 0 nor 1");
    value = byte == 1;
  } else {
    in.take(&value, sizeof value);
  }
}

template <class T>
void CEREAL_SAVE_FUNCTION_NAME(StateWriter& out, const cereal::NameValuePair<T>& pair) {
  out(pair.value);
}
template <class T>
void CEREAL_LOAD_FUNCTION_NAME(StateReader& in, cereal::NameValuePair<T>& pair) {
  in(pair.value);
}

template <class T>
void CEREAL_SAVE_FUNCTION_NAME(StateWriter& out, const cereal::SizeTag<T>& tag) {
  const std::uint64_t count = tag.size;
  out.put(&count, sizeof count);
}
template <class T>
void CEREAL_LOAD_FUNCTION_NAME(StateReader& in, cereal::SizeTag<T>& tag) {
  tag.size = in.count();
}

template <class T>
void CEREAL_SAVE_FUNCTION_NAME(StateWriter& out, const cereal::BinaryData<T>& data) {
  out.put(data.data, static_cast<std::size_t>(data.size));
}
template <class T>
void CEREAL_LOAD_FUNCTION_NAME(StateReader& in, cereal::BinaryData<T>& data) {
  in.take(data.data, static_cast<std::size_t>(data.size));
}

}  // namespace millrace

CEREAL_SETUP_ARCHIVE_TRAITS(millrace::StateReader, millrace::StateWriter)
