// RunStates: what travels in every checkpoint beside what the engine and the hooks save: objects of
// the user, each under a name, and what an earlier run's checkpoint held that this run cannot read.
//
// One per runner, train context. hook_state.h makes a SavedState of any object.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

class SavedState {
 public:
  virtual ~SavedState() = default;
  // Called at capture, inside the stage the save belongs to.
  virtual std::string save() const = 0;
  // Bytes of save() from the checkpoint being resumed, before BeforeTrain. `name` is for messages.
  // Throw to refuse them.
  virtual void load(std::string_view name, std::string_view bytes) = 0;
};

class RunStates {
 public:
  // Throws ConfigError when the name is empty or taken, or after training started.
  void add(std::string name, std::unique_ptr<SavedState> state);
  SavedState* find(std::string_view name) const;

  struct Entry {
    std::string name;
    std::unique_ptr<SavedState> state;
  };
  const std::vector<Entry>& entries() const noexcept { return entries_; }

  // Sections "hook/..." and "object/..." of the resumed checkpoint that nothing in this run knows.
  // They are written into its checkpoints as they were, so that a later run which knows them finds
  // them.
  std::map<std::string, std::string>& kept() noexcept { return kept_; }
  const std::map<std::string, std::string>& kept() const noexcept { return kept_; }

  void close() noexcept { closed_ = true; }

 private:
  std::vector<Entry> entries_;
  std::map<std::string, std::string> kept_;
  bool closed_ = false;
};

// What precedes a state: the magic "MRHS" and its version, 32 bits each.
std::string state_header(std::uint32_t version);
// Removes it from `bytes`. Throws RecordError when it is not there, or when the version is above
// `known`.
std::uint32_t read_state_header(std::string_view owner, std::string_view& bytes,
                                std::uint32_t known);
[[noreturn]] void throw_damaged_state(std::string_view owner, std::uint32_t version,
                                      std::string_view problem);

}  // namespace millrace
