// What goes into a checkpoint, while hooks may still change it: the payload of BeforeSaveCheckpoint
// and AfterLoadCheckpoint. Train context.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "millrace/io/pickle_value.h"

namespace millrace {

class CheckpointContent {
 public:
  CheckpointContent() : root_(pickle::Value::dict()) {}
  explicit CheckpointContent(pickle::Value root) : root_(std::move(root)) {}

  // What Python sees: meta, state_dict, message_hub, optimizer, param_schedulers, and whatever
  // hooks add. Keep values plain (numbers, strings, lists, dicts) so that torch.load's safe default
  // opens the file.
  pickle::Value& root() noexcept { return root_; }
  const pickle::Value& root() const noexcept { return root_; }

  const pickle::Value* find(std::string_view key) const { return root_.find(pickle::Value(key)); }
  void set(std::string_view key, pickle::Value value) {
    root_.set(pickle::Value(key), std::move(value));
  }
  bool remove(std::string_view key) { return root_.erase(pickle::Value(key)); }

  // Ends the hooks' part: what they set is copied, because the I/O thread reads it while they may
  // go on changing theirs. The trees of tensors were made for this save and stay.
  void detach() {
    pickle::Value copy = pickle::Value::dict();
    for (const auto& [key, value] : *root_.as_mapping()) {
      const bool tensors = key == pickle::Value("state_dict") || key == pickle::Value("optimizer");
      copy.set(key, tensors ? value : pickle::deep_copy(value));
    }
    root_ = std::move(copy);
  }

  // What only Millrace reads: named byte sections of the state record.
  std::map<std::string, std::string>& sections() noexcept { return sections_; }

 private:
  pickle::Value root_;
  std::map<std::string, std::string> sections_;
};

}  // namespace millrace
