#include "millrace/io/checkpoint_store.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <tuple>

#include "millrace/io/pth_reader.h"

namespace millrace {
namespace {

constexpr std::string_view kSuffix = ".pth";

bool is_checkpoint(std::string_view name) { return name.ends_with(kSuffix); }

bool is_published(std::string_view name) {
  constexpr std::size_t kDigits = 8;
  name.remove_suffix(kSuffix.size());
  if (name.size() < kDigits + 2 || name[name.size() - kDigits - 1] != '-') return false;
  const std::string_view digits = name.substr(name.size() - kDigits);
  return digits.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool is_candidate(std::string_view name) {
  return is_checkpoint(name) && !name.starts_with("best_") && !is_published(name);
}

std::string sentence(const Fault& fault) {
  switch (fault.kind) {
    case Fault::Kind::truncated:
      return "The file is truncated: " + fault.text();
    case Fault::Kind::foreign:
      return "The file is no checkpoint that can be read: " + fault.text();
    case Fault::Kind::limit:
      return "The file exceeds a limit: " + fault.text();
    case Fault::Kind::corrupt:
      break;
  }
  return "The file is corrupt: " + fault.text();
}

}  // namespace

std::vector<std::string> CheckpointStore::prepare() {
  std::vector<std::string> swept = data_.prepare();
  if (&work_dir_ != &data_) {
    for (std::string& name : work_dir_.prepare()) swept.push_back(std::move(name));
  }
  return swept;
}

CommitTimes CheckpointStore::commit(std::string_view name, FileImage& image) {
  CommitTimes times = data_.commit(name, image);
  const std::string target = data_.location() + "/" + std::string(name);
  BytesImage pointer{std::string_view(target)};
  times.durable = work_dir_.commit(kPointerName, pointer).durable;
  return times;
}

void CheckpointStore::retire(std::span<const std::string> names) {
  std::exception_ptr first;
  for (const std::string& name : names) {
    try {
      data_.retire(name);
    } catch (const StorageError&) {
      if (!first) first = std::current_exception();
    }
  }
  if (first) std::rethrow_exception(first);
}

Result<CheckpointIdentity> CheckpointStore::identity(std::string_view name) {
  auto reader = PthReader::open(data_.open(name));
  if (!reader) return reader.fault();
  auto entry = reader->entry(kStateEntry);
  if (!entry) return entry.fault();
  if (!entry->has_value()) return CheckpointIdentity{};
  auto record = decode_state_record(**entry);
  if (!record) return record.fault();
  return std::move(record->identity);
}

std::vector<CheckpointStore::Candidate> CheckpointStore::candidates(std::vector<Skipped>& skipped) {
  std::vector<Candidate> found;
  for (ObjectInfo& info : data_.list()) {
    if (!is_candidate(info.name)) continue;
    try {
      auto known = identity(info.name);
      if (known) {
        found.push_back({std::move(info), *known});
      } else {
        skipped.push_back({info.name, sentence(known.fault())});
      }
    } catch (const StorageError& error) {
      skipped.push_back({info.name, std::string("The file cannot be read: ") + error.what()});
    }
  }
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(a.identity.generation, a.info.modified_ns, a.info.name) >
           std::tie(b.identity.generation, b.info.modified_ns, b.info.name);
  });
  return found;
}

std::string CheckpointStore::why_unusable(const std::string& name) {
  try {
    const auto reader = PthReader::open(data_.open(name));
    if (!reader) return sentence(reader.fault());
    const auto verified = reader.value().verify();
    return verified ? std::string() : sentence(verified.fault());
  } catch (const StorageError& error) {
    return std::string("The file cannot be read: ") + error.what();
  }
}

CheckpointStore::Scan CheckpointStore::newest_valid() {
  Scan scan;
  for (const Candidate& candidate : candidates(scan.skipped)) {
    const std::string& name = candidate.info.name;
    std::string reason = why_unusable(name);
    if (reason.empty()) {
      scan.name = name;
      scan.identity = candidate.identity;
      return scan;
    }
    scan.skipped.push_back({name, std::move(reason)});
  }
  return scan;
}

std::uint64_t CheckpointStore::highest_generation() {
  std::uint64_t highest = 0;
  for (const ObjectInfo& info : data_.list()) {
    if (!is_checkpoint(info.name)) continue;
    try {
      const auto known = identity(info.name);
      if (known) highest = std::max(highest, known.value().generation);
    } catch (const StorageError&) {
      // Retired since, or unreadable: it cannot be the newest valid one either.
    }
  }
  return highest;
}

}  // namespace millrace
