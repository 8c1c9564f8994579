#include <charconv>
#include <cstdio>

#include "millrace/io/pickle_value.h"

namespace millrace::pickle {
namespace {

// Every level writes a character before it goes deeper and stops at the limit, so the depth of the
// recursion is bounded by the limit too.
class Printer {
 public:
  explicit Printer(std::size_t limit) : limit_(limit) {}

  void print(const Value& value) {
    if (full()) return;
    std::visit([this](const auto& held) { (*this)(held); }, value.data);
  }
  std::string take() {
    if (!full()) return std::move(out_);
    out_.resize(limit_);
    return out_ + "...";
  }

  void operator()(None) { out_ += "None"; }
  void operator()(bool value) { out_ += value ? "True" : "False"; }
  void operator()(std::int64_t value) { out_ += std::to_string(value); }
  void operator()(double value) {
    char text[32];
    const auto end = std::to_chars(text, text + sizeof text, value).ptr;
    out_.append(text, end);
  }
  void operator()(const std::string& value) { quoted(value); }
  void operator()(const BigInt& value) {
    out_ += "<int of " + std::to_string(value.bytes.size()) + " bytes>";
  }
  void operator()(const Bytes& value) { out_ += 'b', quoted(value.data); }
  void operator()(const Global& value) {
    out_ += '<', out_ += value.module + "." + value.name + ">";
  }
  void operator()(const std::shared_ptr<List>& list) { sequence('[', list->items, ']'); }
  void operator()(const std::shared_ptr<Tuple>& tuple) { sequence('(', tuple->items, ')'); }
  void operator()(const std::shared_ptr<Set>& set) { sequence('{', set->items, '}'); }
  void operator()(const std::shared_ptr<Dict>& dict) { mapping(dict->items); }
  void operator()(const std::shared_ptr<PersistentId>& id) { out_ += '@', print(id->id); }
  void operator()(const std::shared_ptr<Call>& call) {
    out_ += call->new_object ? "new " : "=";
    print(call->function);
    print(call->args);
    if (!call->items.empty()) sequence('[', call->items, ']');
    if (!call->pairs.empty()) mapping(call->pairs);
    if (!call->state.is_none()) out_ += " with ", print(call->state);
  }

 private:
  bool full() const { return out_.size() > limit_; }

  void quoted(const std::string& text) {
    out_ += '\'';
    for (const char c : std::string_view(text).substr(0, limit_)) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte >= 0x20 && byte != 0x7f) {
        out_ += c;
      } else {
        char hex[8];
        std::snprintf(hex, sizeof hex, "\\x%02x", byte);
        out_ += hex;
      }
    }
    out_ += '\'';
  }

  void sequence(char open, const std::vector<Value>& items, char close) {
    out_ += open;
    for (std::size_t i = 0; i < items.size() && !full(); ++i) {
      if (i > 0) out_ += ", ";
      print(items[i]);
    }
    out_ += close;
  }

  void mapping(const std::vector<std::pair<Value, Value>>& pairs) {
    out_ += '{';
    for (std::size_t i = 0; i < pairs.size() && !full(); ++i) {
      if (i > 0) out_ += ", ";
      print(pairs[i].first);
      out_ += ": ";
      print(pairs[i].second);
    }
    out_ += '}';
  }

  std::size_t limit_;
  std::string out_;
};

}  // namespace

std::string describe(const Value& value, std::size_t limit) {
  Printer printer(limit);
  printer.print(value);
  return printer.take();
}

}  // namespace millrace::pickle
