// State of hooks and of users' objects, by name and version, through cereal. Include it where such
// a hook is written; it is the only engine header that brings cereal in.
//
//     class Ema final : public StatefulHook<Ema> {
//      public:
//       static constexpr std::uint32_t kStateVersion = 2;
//       template <class Archive>
//       void serialize(Archive& archive, std::uint32_t version) {
//         archive(average_);
//         if (version >= 2) archive(steps_);  // files of version 1 go on working
//       }
//       ...
//     };
//
//     Sampler sampler;                                       // any type that cereal can serialize
//     parts.states.add("sampler", saved_state(sampler));     // and Parts, or Runner::states()
//
// A type says how by what cereal looks for: `serialize(archive, version)`, or a `save(archive,
// version) const` and `load(archive, version)`, as members (which may be private, with `friend
// class cereal::access`) or as free functions; without the version too. Include cereal/types/*.hpp
// for the standard types in it. The version is kStateVersion, else that of CEREAL_CLASS_VERSION,
// else 0; it counts up when the layout changes. Types inside have cereal's own version numbers,
// which nothing checks.
//
// Loading hands older versions over with their number. A newer version, damaged bytes and bytes
// that are left over are an error that ends the resume, so that nothing is lost; a length beyond
// the record is refused before anything is allocated (io/state_archive.h).
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "millrace/io/state_archive.h"
#include "millrace/runtime/engine/hook.h"
#include "millrace/runtime/engine/run_states.h"

namespace millrace {

template <class T>
std::uint32_t state_version() {
  if constexpr (requires {
                  { T::kStateVersion } -> std::convertible_to<std::uint32_t>;
                }) {
    return T::kStateVersion;
  } else {
    return cereal::detail::Version<T>::version;
  }
}

namespace detail {

// Calls what the type offers with our version; cereal would store and pass its own.
template <class T>
void save_object(StateWriter& out, const T& object, std::uint32_t version) {
  namespace traits = cereal::traits;
  if constexpr (traits::has_member_versioned_serialize<T, StateWriter>::value) {
    cereal::access::member_serialize(out, const_cast<T&>(object), version);
  } else if constexpr (traits::has_member_versioned_save<T, StateWriter>::value) {
    cereal::access::member_save(out, object, version);
  } else if constexpr (traits::has_non_member_versioned_serialize<T, StateWriter>::value) {
    CEREAL_SERIALIZE_FUNCTION_NAME(out, const_cast<T&>(object), version);
  } else if constexpr (traits::has_non_member_versioned_save<T, StateWriter>::value) {
    CEREAL_SAVE_FUNCTION_NAME(out, object, version);
  } else {
    out(object);
  }
}

template <class T>
void load_object(StateReader& in, T& object, std::uint32_t version) {
  namespace traits = cereal::traits;
  if constexpr (traits::has_member_versioned_serialize<T, StateReader>::value) {
    cereal::access::member_serialize(in, object, version);
  } else if constexpr (traits::has_member_versioned_load<T, StateReader>::value) {
    cereal::access::member_load(in, object, version);
  } else if constexpr (traits::has_non_member_versioned_serialize<T, StateReader>::value) {
    CEREAL_SERIALIZE_FUNCTION_NAME(in, object, version);
  } else if constexpr (traits::has_non_member_versioned_load<T, StateReader>::value) {
    CEREAL_LOAD_FUNCTION_NAME(in, object, version);
  } else {
    in(object);
  }
}

}  // namespace detail

// The object with its version, as bytes.
template <class T>
std::string encode_state(const T& object) {
  const std::uint32_t version = state_version<T>();
  std::string bytes = state_header(version);
  StateWriter out(bytes);
  detail::save_object(out, object, version);
  return bytes;
}

// Fills `object` from encode_state()'s bytes. Throws RecordError, whose text begins with `owner`
// ("the hook 'Ema'"); `object` is then in an unknown but valid state.
template <class T>
void decode_state(std::string_view owner, std::string_view bytes, T& object) {
  const std::uint32_t version = read_state_header(owner, bytes, state_version<T>());
  try {
    StateReader in(bytes);
    detail::load_object(in, object, version);
    if (in.left() > 0) throw RecordError(std::to_string(in.left()) + " bytes are left over");
  } catch (const RecordError& error) {
    throw_damaged_state(owner, version, error.what());
  } catch (const cereal::Exception& error) {
    throw_damaged_state(owner, version, error.what());
  }
}

// A hook whose state is what its own serialize(), or save() and load(), write.
template <class Derived>
class StatefulHook : public Hook {
 public:
  std::string save_state() const final { return encode_state(static_cast<const Derived&>(*this)); }
  void load_state(std::string_view bytes) final {
    decode_state("the hook '" + std::string(name()) + "'", bytes, static_cast<Derived&>(*this));
  }
};

// `object` outlives the run; it is read and written on the train context.
template <class T>
std::unique_ptr<SavedState> saved_state(T& object) {
  class Reference final : public SavedState {
   public:
    explicit Reference(T& target) : target_(target) {}
    std::string save() const override { return encode_state<T>(target_); }
    void load(std::string_view name, std::string_view bytes) override {
      decode_state("the object '" + std::string(name) + "'", bytes, target_);
    }

   private:
    T& target_;
  };
  return std::make_unique<Reference>(object);
}

}  // namespace millrace
