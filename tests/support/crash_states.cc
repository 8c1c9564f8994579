#include "tests/support/crash_states.h"

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <unordered_set>
#include <utility>
#include <vector>

#include "tests/support/volatile_file.h"

namespace millrace::test {
namespace {

using Kind = DiskOperation::Kind;
using Random = std::mt19937_64;

constexpr std::size_t kNamesUpTo = 32;  // choices; of more, a sample

// What a name stands for from an operation on: a file, a directory, or nothing.
struct NameVersion {
  std::size_t since = 0;
  std::optional<std::size_t> file = {};
  bool directory = false;
};

// Which version of each name is there; of those that have one only, that.
using NameChoice = std::map<std::string, std::size_t>;

struct Names {
  std::set<std::string> directories;
  std::map<std::string, std::size_t> files;
  std::string how;
};

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  a ^= b + 0x9E3779B97F4A7C15ULL + (a << 6) + (a >> 2);
  return a * 0xBF58476D1CE4E5B9ULL;
}

// The names of the model, durable and volatile.
class VolatileNames {
 public:
  explicit VolatileNames(const DiskLog& log) {
    for (const std::string& path : log.start.directories) {
      names_[path] = {NameVersion{0, {}, true}};
    }
    for (const auto& [path, number] : log.start_files) names_[path] = {NameVersion{0, number}};
  }

  void apply(const DiskOperation& operation, std::size_t index);
  // First all names as they are, second the durable ones.
  std::vector<Names> choices(Random& random, bool& all) const;

 private:
  void set(const std::string& path, NameVersion version);
  void sync(const std::string& directory);
  NameChoice as_of(std::size_t operation) const;
  void add_any(std::set<NameChoice>& choices, Random& random, bool& all) const;
  Names take(const NameChoice& choice) const;

  std::map<std::string, std::vector<NameVersion>> names_;  // the first one is durable
};

void VolatileNames::set(const std::string& path, NameVersion version) {
  std::vector<NameVersion>& versions = names_[path];
  if (versions.empty()) versions.emplace_back();
  versions.push_back(version);
}

void VolatileNames::apply(const DiskOperation& operation, std::size_t index) {
  const std::size_t since = index + 1;  // 0: durable
  switch (operation.kind) {
    case Kind::kCreate:
      return set(operation.path, {since, operation.file});
    case Kind::kRename:
      set(operation.path, {since});
      return set(operation.to, {since, operation.file});
    case Kind::kLink:
      return set(operation.to, {since, operation.file});
    case Kind::kUnlink:
      return set(operation.path, {since});
    case Kind::kMakeDirectory:
      return set(operation.path, {since, {}, true});
    case Kind::kSyncDirectory:
      return sync(operation.path);
    case Kind::kWrite:
    case Kind::kResize:
    case Kind::kSync:
    case Kind::kMark:
      return;
  }
}

void VolatileNames::sync(const std::string& directory) {
  for (auto& [path, versions] : names_) {
    if (path == "/" || parent_directory(path) != directory) continue;
    versions = {versions.back()};
    versions.front().since = 0;
  }
  std::erase_if(names_, [](const auto& name) {
    const std::vector<NameVersion>& versions = name.second;
    return versions.size() == 1 && !versions.front().file && !versions.front().directory;
  });
}

NameChoice VolatileNames::as_of(std::size_t operation) const {
  NameChoice choice;
  for (const auto& [path, versions] : names_) {
    std::size_t last = 0;
    while (last + 1 < versions.size() && versions[last + 1].since <= operation) ++last;
    choice[path] = last;
  }
  return choice;
}

std::vector<Names> VolatileNames::choices(Random& random, bool& all) const {
  std::set<std::size_t> operations;  // volatile ones
  for (const auto& [path, versions] : names_) {
    for (const NameVersion& version : versions) operations.insert(version.since);
  }
  std::set<NameChoice> chosen;
  for (const std::size_t operation : operations) chosen.insert(as_of(operation));
  add_any(chosen, random, all);
  const NameChoice now = as_of(SIZE_MAX), durable = as_of(0);
  std::vector<Names> names{take(now)};
  if (now != durable) names.push_back(take(durable));
  for (const NameChoice& choice : chosen) {
    if (choice != now && choice != durable) names.push_back(take(choice));
  }
  return names;
}

void VolatileNames::add_any(std::set<NameChoice>& choices, Random& random, bool& all) const {
  std::size_t product = 1;
  for (const auto& [path, versions] : names_) {
    product = std::min(product * versions.size(), kNamesUpTo + 1);
  }
  const bool sampled = product > kNamesUpTo;
  if (sampled) all = false;
  for (std::size_t i = 0; i < std::min(product, kNamesUpTo); ++i) {
    NameChoice choice;
    std::size_t rest = sampled ? random() : i;
    for (const auto& [path, versions] : names_) {
      choice[path] = rest % versions.size();
      rest = sampled ? random() : rest / versions.size();
    }
    choices.insert(std::move(choice));
  }
}

// Maps are in the order of the paths, so a directory comes before what is in it.
Names VolatileNames::take(const NameChoice& choice) const {
  Names names;
  for (const auto& [path, number] : choice) {
    const std::vector<NameVersion>& versions = names_.at(path);
    const NameVersion& version = versions[number];
    const bool there = path == "/" || names.directories.contains(parent_directory(path));
    if (there && version.directory) names.directories.insert(path);
    if (there && version.file) names.files.emplace(path, *version.file);
    if (number + 1 == versions.size()) continue;
    names.how += " " + path.substr(path.rfind('/') + 1) + ":" + std::to_string(number) + "/" +
                 std::to_string(versions.size() - 1);
  }
  return names;
}

// Walks through the log.
class Enumerator {
 public:
  using Visit = std::function<void(const CrashState&)>;
  Enumerator(const DiskLog& log, const CrashLimits& limits, const Visit& visit)
      : limits_(limits), visit_(visit), names_(log) {
    for (const auto& [path, number] : log.start_files) {
      files_.try_emplace(number, *log.start.files.at(path));
    }
  }

  void apply(const DiskOperation& operation, std::size_t index) {
    if (operation.kind == Kind::kCreate) files_[operation.file] = VolatileFile();
    if (operation.kind == Kind::kWrite || operation.kind == Kind::kResize) {
      files_.at(operation.file).change(operation);
    }
    if (operation.kind == Kind::kSync) files_.at(operation.file).sync();
    if (operation.kind == Kind::kMark) ++marks_;
    names_.apply(operation, index);
  }

  void cut(std::size_t operations);
  const CrashCounts& counts() const { return counts_; }

 private:
  using Versions = std::map<std::size_t, const std::vector<FileVersion>*>;  // by file
  using Pick = std::map<std::size_t, std::size_t>;

  void show(const Names& names, const Versions& versions, const Pick& pick);
  static Pick pick_of(const Versions& versions, std::size_t number);
  static Pick durable(const Versions& versions);

  const CrashLimits limits_;
  const Visit& visit_;
  VolatileNames names_;
  std::map<std::size_t, VolatileFile> files_;
  std::size_t marks_ = 0, operations_ = 0;
  std::unordered_set<std::uint64_t> seen_;
  CrashCounts counts_;
};

// The number-th combination; 0 is everything.
Enumerator::Pick Enumerator::pick_of(const Versions& versions, std::size_t number) {
  Pick pick;
  for (const auto& [file, all] : versions) {
    pick[file] = number % all->size();
    number /= all->size();
  }
  return pick;
}

Enumerator::Pick Enumerator::durable(const Versions& versions) {
  Pick pick;
  for (const auto& [file, all] : versions) pick[file] = std::min<std::size_t>(1, all->size() - 1);
  return pick;
}

void Enumerator::cut(std::size_t operations) {
  Random random(mix(limits_.seed, operations));
  operations_ = operations;
  bool all = true;
  const std::vector<Names> choices = names_.choices(random, all);
  std::vector<Versions> versions(choices.size());
  std::vector<std::size_t> products(choices.size(), 1);
  std::size_t total = 0;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    for (const auto& [path, file] : choices[i].files) {
      if (versions[i].contains(file)) continue;
      versions[i][file] = &files_.at(file).versions(random, all);
      products[i] = std::min<std::size_t>(products[i] * versions[i][file]->size(), 1 << 20);
    }
    total += products[i];
  }
  ++counts_.points;
  if (total <= limits_.per_point) {
    if (all) ++counts_.all_of;
    for (std::size_t i = 0; i < choices.size(); ++i) {
      for (std::size_t n = 0; n < products[i]; ++n) {
        show(choices[i], versions[i], pick_of(versions[i], n));
      }
    }
    return;
  }
  for (const std::size_t i : {std::size_t{0}, std::min<std::size_t>(1, choices.size() - 1)}) {
    show(choices[i], versions[i], pick_of(versions[i], 0));
    show(choices[i], versions[i], durable(versions[i]));
  }
  for (std::size_t n = 4; n < limits_.per_point; ++n) {
    const std::size_t i = random() % choices.size();
    show(choices[i], versions[i], pick_of(versions[i], random() % products[i]));
  }
}

void Enumerator::show(const Names& names, const Versions& versions, const Pick& pick) {
  CrashState state{operations_, {names.directories, {}}, "names:" + names.how};
  std::uint64_t hash = mix(marks_, 0);
  for (const std::string& path : names.directories) hash += mix(std::hash<std::string>()(path), 1);
  for (const auto& [path, file] : names.files) {
    const FileVersion& version = (*versions.at(file))[pick.at(file)];
    hash += mix(std::hash<std::string>()(path), version.hash);
    state.disk.files.emplace(path, version.file);
    if (!version.how.empty()) {
      state.how += "; " + path.substr(path.rfind('/') + 1) + ": " + version.how;
    }
  }
  if (!seen_.insert(hash).second) {
    ++counts_.duplicates;
    return;
  }
  ++counts_.states;
  visit_(state);
}

}  // namespace

CrashCounts for_each_crash_state(const DiskLog& log, const CrashLimits& limits,
                                 const std::function<void(const CrashState&)>& visit) {
  Enumerator enumerator(log, limits, visit);
  enumerator.cut(0);
  for (std::size_t i = 0; i < log.operations.size(); ++i) {
    enumerator.apply(log.operations[i], i);
    enumerator.cut(i + 1);
  }
  return enumerator.counts();
}

}  // namespace millrace::test
