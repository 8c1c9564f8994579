// What goes into a checkpoint, while hooks may still change it: the payload of BeforeSaveCheckpoint
// and AfterLoadCheckpoint. Train context.
//
//     on.every<BeforeSaveCheckpoint>([this](const BeforeSaveCheckpoint& event) {
//       pickle::Value averages = pickle::Value::ordered_dict();
//       for (const Average& a : averages_)
//         averages.set(a.name, event.content.tensor(a.view, Mutation::kBehindGate, a.memory));
//       event.content.set("ema_state_dict", averages);
//     });
//
// Values and containers are the hook's to change as it likes; what it goes on changing after the
// event does not reach the file. Tensor leaves are values too: they are replaced, never changed.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/io/pickle_value.h"
#include "millrace/io/pickler.h"
#include "millrace/runtime/engine/strategy.h"
#include "millrace/runtime/engine/tensor_view.h"

namespace millrace {

class ContentTensors;  // runtime/engine/content_tensors.h

class CheckpointContent {
 public:
  CheckpointContent();
  ~CheckpointContent();
  // A file that was read: `file` outlives the content, its tree is moved here.
  explicit CheckpointContent(CheckpointFile& file);

  // What Python sees: meta, state_dict, message_hub, optimizer, param_schedulers, and whatever
  // hooks add. Keep values plain (numbers, strings, lists, dicts, tensors) so that torch.load's
  // safe default opens the file. Asking for a tree of captured tensors copies it, which costs about
  // a microsecond per tensor; set() and remove() do not ask.
  pickle::Value& root();
  const pickle::Value& root() const noexcept { return root_; }

  pickle::Value* find(std::string_view key);
  const pickle::Value* find(std::string_view key) const { return root_.find(pickle::Value(key)); }
  void set(std::string_view key, pickle::Value value);
  // The tensors that nothing else refers to do not get into the file.
  bool remove(std::string_view key);

  // ---- tensors of a checkpoint that is being saved ----

  // The leaf of a tensor to put anywhere into the tree of this checkpoint; another one needs
  // another leaf. kBehindGate: its bytes change only behind the state gate (in the optimizer step,
  // or after StateGate::writable); kAnyTime: they are copied before the save returns. Memory that
  // is captured already is not written twice, as long as its elements have the same type.
  // `keep_alive` owns the memory; it is released on the train context. `moved` is asked once the
  // bytes are copied, on any thread, and says why they cannot be trusted, or nothing. `on_device`:
  // the bytes are memory of the strategy's device. Throws Error when bytes and sizes differ.
  pickle::Value tensor(const TensorView& view, Mutation mutation,
                       std::shared_ptr<const void> keep_alive,
                       std::function<std::string()> moved = {}, bool on_device = false);

  // ---- tensors of a checkpoint that was loaded ----

  // The elements of a leaf of the file, row-major; valid as long as the file. Throws
  // CheckpointError when the value is no tensor of the file, or is strided.
  std::span<const std::byte> bytes_of(const pickle::Value& leaf) const;
  const CheckpointFile& file() const;

  // Of a checkpoint that is being saved: what only Millrace reads, named byte sections of the state
  // record, those of hooks and objects among them. What resume shall load again is best a state
  // (Hook::save_state, Parts::states). Of sections that a resumed run does not know, "hook/..." and
  // "object/..." travel on into its checkpoints; one of another name is in this file alone.
  // Of a checkpoint that was loaded: empty. Its sections are file().section(name).
  std::map<std::string, std::string>& sections() noexcept { return sections_; }

  // ---- for the checkpointer ----

  // Before the hooks: their tensors join those of `state`, which outlives the content.
  void begin(CapturedState& state);
  // A tree of captured tensors, which other threads may be reading.
  void share(std::string_view key, pickle::Value tree);
  // Ends the hooks' part. What they set is copied, because the I/O thread reads it; `state` then
  // holds the storages that the tree names, and no others. Throws Error for a leaf that was made
  // for another checkpoint.
  void detach();
  // Pickle the tree with these names for its storages.
  const pickle::StorageNames& storage_names() const noexcept { return names_; }

 private:
  void unshare(std::string_view key);
  void forget_shared(std::string_view key);

  pickle::Value root_;
  std::map<std::string, std::string> sections_;
  const CheckpointFile* file_ = nullptr;       // of one that was loaded
  std::unique_ptr<ContentTensors> tensors_;    // of one that is being saved
  std::set<std::string, std::less<>> shared_;  // keys whose trees nobody has asked for
  bool complete_ = true;                       // no captured tree was touched or dropped
  pickle::StorageNames names_;
};

}  // namespace millrace
