// What makes a type an event.
//
//   struct LossSpiked {
//     static constexpr std::string_view kName = "loss_spiked";
//     const Progress& at;
//     double loss;
//   };
//
// An event is a small view: trivially destructible, valid during its dispatch, passed by reference
// to inline subscribers. Who keeps it longer needs a copy that owns its data, so only two kinds can
// be observed in the background: an event with a type Owned and a member `Owned own() const`, and
// one that says `static constexpr bool kSelfContained = true`, which holds no reference, pointer or
// view and is copied as it is. The library's events and a user's own work the same way.
#pragma once

#include <concepts>
#include <cstddef>
#include <string_view>
#include <type_traits>
#include <utility>

namespace millrace {

namespace detail {
std::size_t next_event_index() noexcept;
}

// Dense indices, given to the event types of the program before main() starts: a bus looks a
// channel up in a vector, without hashing. The numbers mean nothing beyond the process.
template <class E>
inline const std::size_t event_index = detail::next_event_index();

struct EventKey {
  std::size_t index;
  std::string_view name;
};

// The key of an event type; does not compile for a type that is none.
template <class E>
EventKey event_key() noexcept {
  static_assert(std::is_class_v<E> && !std::is_const_v<E>, "an event is a plain struct");
  static_assert(
      requires {
        { E::kName } -> std::convertible_to<std::string_view>;
      },
      "an event needs `static constexpr std::string_view kName`");
  static_assert(
      std::is_trivially_destructible_v<E>,
      "an event must be trivially destructible: hold views and references, and give it a type "
      "Owned for subscribers that keep the data");
  static_assert(std::is_copy_constructible_v<E>, "awaited subscribers need a copy of the event");
  return {event_index<E>, E::kName};
}

template <class E>
concept HasOwned = requires(const E& event) {
  typename E::Owned;
  { event.own() } -> std::convertible_to<typename E::Owned>;
};

template <class E>
concept SelfContained = requires {
  requires E::kSelfContained;
};

namespace detail {
template <class E>
auto own(const E& event) {
  static_assert(
      HasOwned<E> || SelfContained<E>,
      "a background subscriber runs after the dispatch, when the event's references are gone: "
      "give the event a type Owned and `Owned own() const`, or declare `static constexpr bool "
      "kSelfContained = true` when it holds none");
  if constexpr (HasOwned<E>) {
    return static_cast<typename E::Owned>(event.own());
  } else {
    return event;
  }
}
}  // namespace detail

// What a background subscriber of E receives.
template <class E>
using OwnedOf = decltype(detail::own(std::declval<const E&>()));

}  // namespace millrace
