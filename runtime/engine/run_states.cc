#include "millrace/runtime/engine/run_states.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "millrace/io/record_stream.h"
#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

constexpr std::string_view kMagic = "MRHS";

}  // namespace

void RunStates::add(std::string name, std::unique_ptr<SavedState> state) {
  if (closed_) throw ConfigError("states." + name, "added after training started");
  if (name.empty()) throw ConfigError("states", "a state needs a name");
  if (find(name) != nullptr) {
    throw ConfigError("states." + name, "a state of this name is already there");
  }
  entries_.push_back({std::move(name), std::move(state)});
}

SavedState* RunStates::find(std::string_view name) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [name](const Entry& entry) { return entry.name == name; });
  return found == entries_.end() ? nullptr : found->state.get();
}

std::string state_header(std::uint32_t version) {
  std::string header(kMagic);
  for (int shift = 0; shift < 32; shift += 8) header += static_cast<char>(version >> shift & 0xFF);
  return header;
}

std::uint32_t read_state_header(std::string_view owner, std::string_view& bytes,
                                std::uint32_t known) {
  if (!bytes.starts_with(kMagic) || bytes.size() < kMagic.size() + 4) {
    throw RecordError("what the checkpoint holds for " + std::string(owner) +
                      " was not written by StatefulHook or saved_state()");
  }
  std::uint32_t version = 0;
  for (int i = 0; i < 4; ++i) {
    const auto byte = static_cast<unsigned char>(bytes[kMagic.size() + i]);
    version |= static_cast<std::uint32_t>(byte) << (8 * i);
  }
  bytes.remove_prefix(kMagic.size() + 4);
  if (version > known) {
    throw RecordError("the state of " + std::string(owner) + " has version " +
                      std::to_string(version) + ", and this program knows versions up to " +
                      std::to_string(known) +
                      ". Resume with a program at least as new as the one that saved it, or "
                      "without " +
                      std::string(owner) + ", whose state then stays in the checkpoints");
  }
  return version;
}

void throw_damaged_state(std::string_view owner, std::uint32_t version, std::string_view problem) {
  throw RecordError(
      "the state of " + std::string(owner) + ", version " + std::to_string(version) +
      ", is damaged, or its loading and saving do not agree: " + std::string(problem));
}

}  // namespace millrace
