#include "millrace/io/unpickle_machine.h"

#include <iterator>
#include <string>

namespace millrace::pickle {

void UnpickleMachine::push(Value value) {
  if (++values_ > limits_.max_values) {
    in_.fail(Fault::Kind::limit,
             "The pickle holds more than " + std::to_string(limits_.max_values) + " values.");
  }
  stack_.push_back(std::move(value));
}

Value& UnpickleMachine::top() {
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) {
    in_.corrupt("An operation finds nothing on the stack.");
  }
  return stack_.back();
}

Value UnpickleMachine::pop() {
  Value value = std::move(top());
  stack_.pop_back();
  return value;
}

std::vector<Value> UnpickleMachine::pop_to_mark() {
  if (marks_.empty()) in_.corrupt("An operation finds no mark on the stack.");
  const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
  std::vector<Value> items(std::make_move_iterator(first), std::make_move_iterator(stack_.end()));
  stack_.erase(first, stack_.end());
  marks_.pop_back();
  return items;
}

void UnpickleMachine::pop_or_unmark() {
  if (!marks_.empty() && marks_.back() == stack_.size()) {
    marks_.pop_back();
  } else {
    pop();
  }
}

void UnpickleMachine::spend(std::uint64_t bytes) {
  copied_ += bytes;
  if (copied_ / 64 > in_.size() + 1024) {
    in_.fail(Fault::Kind::limit,
             "The pickle repeats its strings until they are 64 times its own size.");
  }
}

void UnpickleMachine::spend_copy(const Value& value) {
  if (const auto* text = std::get_if<std::string>(&value.data)) spend(text->size());
  if (const auto* bytes = std::get_if<Bytes>(&value.data)) spend(bytes->data.size());
  if (const auto* number = std::get_if<BigInt>(&value.data)) spend(number->bytes.size());
  if (const auto* global = std::get_if<Global>(&value.data)) {
    spend(global->module.size() + global->name.size());
  }
}

void UnpickleMachine::put(std::uint64_t place) {
  spend_copy(top());
  memo_.insert_or_assign(place, top());
}

void UnpickleMachine::get(std::uint64_t place) {
  const auto found = memo_.find(place);
  if (found == memo_.end()) {
    in_.corrupt("The pickle refers to memo " + std::to_string(place) + ", which it never set.");
  }
  spend_copy(found->second);
  push(found->second);
}

Value UnpickleMachine::finish() {
  Value root = pop();
  if (!stack_.empty() || !marks_.empty()) in_.corrupt("The pickle ends with a value left over.");
  arena_.check(limits_.max_depth, in_);
  return root;
}

}  // namespace millrace::pickle
