#include "tests/support/volatile_file.h"

#include <algorithm>
#include <functional>
#include <set>
#include <string_view>

namespace millrace::test {
namespace {

std::uint64_t hash_of(const std::vector<std::byte>& bytes) {
  return std::hash<std::string_view>()({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

std::uint64_t end_of(const DiskOperation& operation) {
  return operation.kind == DiskOperation::Kind::kResize ? operation.size
                                                        : operation.offset + operation.bytes.size();
}

// What an earlier file may have left in a block.
std::byte stale_byte(std::uint64_t at) { return static_cast<std::byte>(0x80 | (at * 131)); }

}  // namespace

VolatileFile::VolatileFile(const DiskFile& durable)
    : durable_(std::make_shared<const DiskFile>(durable)) {}

void VolatileFile::change(const DiskOperation& operation) {
  versions_.clear();
  changes_.push_back(&operation);
  if (operation.bytes.empty()) return;
  for (std::uint64_t s = operation.offset / kSector; s * kSector < end_of(operation); ++s) {
    ++sectors_[s];
  }
}

void VolatileFile::sync() {
  durable_ = make({sectors_, sizes().back(), false}).file;
  versions_.clear();
  changes_.clear();
  sectors_.clear();
}

// That the file had since it was synced; the last one is its size now.
std::vector<std::uint64_t> VolatileFile::sizes() const {
  std::vector<std::uint64_t> sizes{durable_->bytes.size()};
  for (const DiskOperation* change : changes_) {
    const bool resized = change->kind == DiskOperation::Kind::kResize;
    sizes.push_back(resized ? change->size : std::max(sizes.back(), end_of(*change)));
  }
  return sizes;
}

FileVersion VolatileFile::make(const Choice& choice) const {
  auto file = std::make_shared<DiskFile>(*durable_);
  std::vector<std::byte>& bytes = file->bytes;
  const std::size_t known = bytes.size();
  bytes.resize(choice.size);
  for (std::size_t i = known; choice.stale && i < bytes.size(); ++i) bytes[i] = stale_byte(i);
  std::map<std::uint64_t, std::size_t> seen;
  for (const DiskOperation* change : changes_) {
    std::uint64_t at = change->offset;
    const std::uint64_t end = change->offset + change->bytes.size();
    while (at < end) {
      const std::uint64_t sector = at / kSector;
      const std::uint64_t last = std::min({end, (sector + 1) * kSector, choice.size});
      const auto chosen = choice.writes.find(sector);
      const std::size_t writes = chosen != choice.writes.end() ? chosen->second : 0;
      if (seen[sector]++ < writes && at < last) {
        std::copy_n(change->bytes.begin() + static_cast<std::ptrdiff_t>(at - change->offset),
                    last - at, bytes.begin() + static_cast<std::ptrdiff_t>(at));
      }
      at = (sector + 1) * kSector;
    }
  }
  FileVersion version{std::move(file), 0, {}};
  version.hash = hash_of(version.file->bytes);
  std::size_t kept = 0, of = 0;
  for (const auto& [sector, count] : sectors_) of += count;
  for (const auto& [sector, count] : choice.writes) kept += count;
  version.how = std::to_string(kept) + " of " + std::to_string(of) + " sectors, size " +
                std::to_string(choice.size) + (choice.stale ? ", stale" : "");
  return version;
}

const std::vector<FileVersion>& VolatileFile::versions(std::mt19937_64& random, bool& all) {
  if (versions_.empty()) {
    all_ = true;
    std::set<std::uint64_t> known;
    for (const Choice& choice : choices(random)) {
      FileVersion version = make(choice);
      if (known.insert(version.hash).second) versions_.push_back(std::move(version));
    }
    versions_.front().how.clear();
  }
  all = all && all_;
  return versions_;
}

std::vector<VolatileFile::Choice> VolatileFile::choices(std::mt19937_64& random) {
  std::vector<Choice> choices{{sectors_, sizes().back(), false}};
  if (changes_.empty()) return choices;
  choices.push_back({{}, durable_->bytes.size(), false});
  const std::vector<std::uint64_t> all_sizes = sizes();
  std::size_t product = 2 * std::set<std::uint64_t>(all_sizes.begin(), all_sizes.end()).size();
  for (const auto& [sector, count] : sectors_) {
    product = std::min(product * (count + 1), kAllUpTo + 1);
  }
  all_ = product <= kAllUpTo;
  if (all_) {
    choose_all(choices);
  } else {
    choose_some(choices, random);
  }
  return choices;
}

void VolatileFile::choose_all(std::vector<Choice>& choices) const {
  std::vector<Choice> grown{{}};
  for (const auto& [sector, count] : sectors_) {
    std::vector<Choice> longer;
    for (const Choice& choice : grown) {
      for (std::size_t writes = 0; writes <= count; ++writes) {
        longer.push_back(choice);
        longer.back().writes[sector] = writes;
      }
    }
    grown = std::move(longer);
  }
  for (const Choice& choice : grown) {
    for (const std::uint64_t size : sizes()) {
      for (const bool stale : {false, true}) choices.push_back({choice.writes, size, stale});
    }
  }
}

// What real disks leave: all up to a sector, all from one on, all but one, any; the bytes without
// the size, and the size without the bytes.
void VolatileFile::choose_some(std::vector<Choice>& choices, std::mt19937_64& random) const {
  const std::vector<std::uint64_t> all_sizes = sizes();
  const std::uint64_t size = all_sizes.back();
  const auto some = [&](auto keeps) {
    Choice choice{{}, size, random() % 2 == 0};
    for (const auto& [sector, count] : sectors_) {
      if (keeps(sector)) choice.writes[sector] = 1 + random() % count;
    }
    choices.push_back(std::move(choice));
  };
  const auto any_sector = [&] {
    return std::next(sectors_.begin(), static_cast<std::ptrdiff_t>(random() % sectors_.size()))
        ->first;
  };
  choices.push_back({{}, size, false});
  choices.push_back({{}, size, true});
  choices.push_back({sectors_, all_sizes[random() % all_sizes.size()], false});
  if (sectors_.empty()) return;
  for (int i = 0; i < 2; ++i) {
    const std::uint64_t cut = any_sector();
    some([&](std::uint64_t sector) { return sector < cut; });
    some([&](std::uint64_t sector) { return sector >= cut; });
    some([&](std::uint64_t sector) { return sector != cut; });
    some([&](std::uint64_t) { return random() % 2 == 0; });
  }
}

}  // namespace millrace::test
