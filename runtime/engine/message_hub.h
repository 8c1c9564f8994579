// The message hub: where the loop and the hooks leave numbers and facts for each other. One per
// runner, on the train context; there is no current instance.
//
// Scalars keep a history; info entries hold any plain value. References stay valid for the hub's
// life (that of an info entry until it is popped), so a hook that writes every iteration looks it
// up once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "millrace/events/stage_events.h"
#include "millrace/io/pickle_value.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/history_buffer.h"

namespace millrace {

class MessageHub {
 public:
  // Keeps the newest `max_history` entries of every scalar.
  explicit MessageHub(std::size_t max_history = HistoryBuffer::kMaxLength)
      : max_history_(max_history) {}

  struct NamedScalar {
    std::string name;
    HistoryBuffer history;
  };

  // The scalar `name` ("train/loss"), created when it is new.
  HistoryBuffer& scalar(std::string_view name);
  const HistoryBuffer* find_scalar(std::string_view name) const;
  // All scalars, in the order they were first written.
  const std::deque<NamedScalar>& scalars() const noexcept { return scalars_; }

  // A number that may still be on its way from a device: take_arrived() writes it to `history`, in
  // the order of these calls. One that is not there ScalarSource::kKept iterations later is left
  // out.
  void expect(HistoryBuffer& history, const Scalar& number, std::int64_t iter);
  // After iteration `iter`.
  void take_arrived(std::int64_t iter);

  // The info entry `name` ("epoch"), None when it is new.
  pickle::Value& info(std::string_view name);
  const pickle::Value* find_info(std::string_view name) const;
  void pop_info(std::string_view name);

  // What Python sees: {log_scalars: {}, runtime_info, resumed_keys}, a copy that shares nothing.
  // The history itself travels in our own record, so that the file opens with torch.load's safe
  // default.
  pickle::Value python_state() const;
  // Merges runtime_info of a file's message_hub; unknown shapes are ignored.
  void load_python_state(const pickle::Value& hub);

  // The newest kSavedHistory entries of every scalar. What smoothing windows need, without the
  // unbounded growth of the reference's files.
  static constexpr std::size_t kSavedHistory = 4096;
  std::string save_history() const;
  // A fault changes nothing. Allocates no more than a small multiple of `bytes`.
  Result<std::monostate> load_history(std::string_view bytes);

 private:
  struct Expected {
    HistoryBuffer* history;
    Scalar number;
    std::int64_t iter;
  };
  std::size_t max_history_;
  std::vector<Expected> expected_;   // oldest first
  std::deque<NamedScalar> scalars_;  // a deque: references survive growth
  std::map<std::string, HistoryBuffer*, std::less<>> by_name_;
  std::map<std::string, pickle::Value, std::less<>> info_;
};

}  // namespace millrace
