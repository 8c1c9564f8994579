// The reference's CheckpointHook as a small model: which files there are after each point of a run,
// what they hold, and where last_checkpoint points. It is held against recorded runs of the real
// one (tests/golden/checkpoint_hook.json), and with one rule switched off it says what ours must
// do.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace millrace::test {

// Keeps the order of keys: "auto" takes the first metric.
using Json = nlohmann::ordered_json;

struct FileFacts {
  std::vector<std::string> keys;  // top level, sorted
  std::optional<std::int64_t> epoch, iter;
  std::map<std::string, std::string> best;  // best and last entries of the message hub, as text
  bool operator==(const FileFacts&) const = default;
};
void PrintTo(const FileFacts& facts, std::ostream* out);

struct RunFacts {
  std::vector<std::pair<std::string, std::vector<std::string>>> log;  // point, files after it
  std::string last;                                                   // base name, empty: none
  std::map<std::string, FileFacts> files;                             // after the run
};

// Hex digits of a published file's name as the recordings have them: -HASH.
std::string without_hash(const std::string& name);
// A list option that the reference also takes as one string.
std::vector<std::string> strings_of(const Json& value);

// What a recording says.
RunFacts recorded_facts(const Json& result);
// What the model says for the points of that recording. `refresh`: after a new best, the newest
// regular file is written anew under the present step (the reference does, we do not).
RunFacts modelled_facts(const Json& config, const Json& result, bool refresh);

}  // namespace millrace::test
