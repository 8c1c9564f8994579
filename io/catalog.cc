#include "millrace/io/catalog.h"

#include <algorithm>
#include <cerrno>
#include <map>
#include <tuple>
#include <utility>

#include "millrace/io/checkpoint_identity.h"
#include "millrace/io/checkpoint_name.h"

namespace millrace {
namespace {

constexpr std::uint64_t kMaxBytes = std::uint64_t{64} << 20;
constexpr std::uint64_t kCompactFrom = std::uint64_t{64} << 10;
constexpr std::size_t kDeadFactor = 4;

// "3 checkpoints", and the first of them by name.
std::string counted(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 3;
  std::string text =
      std::to_string(names.size()) + (names.size() == 1 ? " checkpoint (" : " checkpoints (");
  for (std::size_t i = 0; i < std::min(kShown, names.size()); ++i) {
    text += (i > 0 ? ", " : "") + names[i];
  }
  return text + (names.size() > kShown ? " ...)" : ")");
}

std::string catalog_text(const std::string& rest) { return std::string(Catalog::kName) + rest; }

}  // namespace

struct Catalog::File {
  ObjectInfo info;
  CheckpointIdentity identity;

  bool is_of(const CatalogRow& row) const {
    if (row.identity.save_id != identity.save_id) return false;
    return !identity.save_id.empty() || row.size == info.size;
  }
  CatalogRow unknown_row() const {
    CatalogRow row;
    row.name = info.name;
    row.identity = identity;
    row.size = info.size;
    row.saved_at_ns = info.modified_ns;
    row.pinned.reset();
    return row;
  }
};

std::vector<std::string> Catalog::open() {
  std::vector<std::string> notes;
  rows_.clear();
  CatalogLog log = load(notes);
  newer_ = log.state == CatalogLog::State::newer;
  records_ = log.records;
  bytes_ = log.bytes;
  whole_ = log.state != CatalogLog::State::whole;
  const bool differs = reconcile(std::move(log.rows), notes);
  const bool nothing_yet = bytes_ == 0 && rows_.empty();
  if (newer_ || nothing_yet || !(whole_ || differs || mostly_dead())) return notes;
  try {
    commit_whole();
  } catch (const StorageError& error) {
    whole_ = true;
    notes.push_back(catalog_text(" cannot be written, and is written with the next change: ") +
                    error.what());
  }
  return notes;
}

// The log as it is. One that is missing, or cannot be read, is corrupt without rows.
CatalogLog Catalog::load(std::vector<std::string>& notes) {
  CatalogLog log;
  log.state = CatalogLog::State::corrupt;
  try {
    const auto object = storage_.open(kName);
    log.bytes = object->size();
    if (log.bytes > kMaxBytes) {
      log.problem = "It is larger than a catalog can be.";
    } else {
      std::vector<std::byte> bytes(log.bytes);
      object->read(0, bytes);
      log = decode_catalog(bytes);
    }
  } catch (const StorageError& error) {
    if (error.error_number() == ENOENT) return log;
    log.problem = error.what();
  }
  switch (log.state) {
    case CatalogLog::State::whole:
      break;
    case CatalogLog::State::torn:
      notes.push_back(catalog_text(" was cut back to its last whole record. ") + log.problem);
      break;
    case CatalogLog::State::corrupt:
      notes.push_back(catalog_text(" is corrupt and was rebuilt from the files; scores and pins "
                                   "are unknown, and what is unknown is kept. ") +
                      log.problem);
      break;
    case CatalogLog::State::newer:
      notes.push_back(catalog_text(" is left as it is and not written to; scores and pins are "
                                   "unknown, and what is unknown is kept. ") +
                      log.problem);
  }
  return log;
}

std::vector<Catalog::File> Catalog::read_files(std::vector<std::string>& notes) const {
  std::vector<File> files;
  for (ObjectInfo& info : storage_.list()) {
    if (!is_checkpoint_name(info.name) || is_published_name(info.name)) continue;
    try {
      auto identity = read_identity(storage_.open(info.name));
      if (identity) {
        files.push_back({std::move(info), std::move(identity).value()});
      } else {
        notes.push_back(info.name + " has no row in the catalog: " + identity.fault().text());
      }
    } catch (const StorageError& error) {
      notes.push_back(info.name + " has no row in the catalog: " + error.what());
    }
  }
  return files;
}

// Fills rows_ from what the log and the files say together; true when they differ.
bool Catalog::reconcile(std::vector<CatalogRow> logged, std::vector<std::string>& notes) {
  std::map<std::string, File> files;
  for (File& file : read_files(notes)) {
    std::string name = file.info.name;
    files.emplace(std::move(name), std::move(file));
  }
  std::vector<std::string> gone, taken;
  for (CatalogRow& row : logged) {
    const auto found = files.find(row.name);
    if (found == files.end()) {
      gone.push_back(row.name);
    } else if (!found->second.is_of(row)) {
      taken.push_back(row.name);
    } else {
      row.identity = found->second.identity;
      row.size = found->second.info.size;
      rows_.push_back(std::move(row));
      files.erase(found);
    }
  }
  std::vector<CatalogRow> unknown;
  for (const auto& [name, file] : files) unknown.push_back(file.unknown_row());
  std::sort(unknown.begin(), unknown.end(), [](const CatalogRow& a, const CatalogRow& b) {
    return std::tie(a.identity.generation, a.saved_at_ns, a.name) <
           std::tie(b.identity.generation, b.saved_at_ns, b.name);
  });
  std::vector<std::string> added;
  for (CatalogRow& row : unknown) {
    added.push_back(row.name);
    rows_.push_back(std::move(row));
  }
  if (!gone.empty()) {
    notes.push_back(
        "Rows of the catalog are dropped, because their files are gone or cannot be "
        "read: " +
        counted(gone) + ".");
  }
  if (!taken.empty()) {
    notes.push_back(
        "Rows of the catalog are void, because another file has the name: " + counted(taken) + ".");
  }
  if (!added.empty()) {
    notes.push_back(counted(added) +
                    " had no row in the catalog, and are kept: scores and pins are unknown.");
  }
  return !gone.empty() || !taken.empty() || !added.empty();
}

const CatalogRow* Catalog::find(std::string_view name) const {
  const auto row =
      std::find_if(rows_.begin(), rows_.end(), [&](const auto& each) { return each.name == name; });
  return row != rows_.end() ? &*row : nullptr;
}

const CatalogRow* Catalog::find_save(std::string_view save_id) const {
  if (save_id.empty()) return nullptr;
  const auto row = std::find_if(rows_.begin(), rows_.end(),
                                [&](const auto& each) { return each.identity.save_id == save_id; });
  return row != rows_.end() ? &*row : nullptr;
}

void Catalog::add(CatalogRow row) { change(std::move(row)); }

bool Catalog::score(std::string_view save_id, std::string_view metric, double value) {
  return change(CatalogScore{std::string(save_id), std::string(metric), value});
}

bool Catalog::pin(std::string_view name, bool pinned) {
  return change(CatalogPin{std::string(name), pinned});
}

bool Catalog::retire(std::string_view name) { return change(CatalogEnd{std::string(name)}); }

bool Catalog::change(const CatalogChange& change) {
  const std::vector<std::byte> record = catalog_record(change);
  if (!apply_change(rows_, change)) return false;
  if (newer_) return true;
  // Until the write has succeeded, what the log ends with is not known.
  if (std::exchange(whole_, true) || mostly_dead() || !storage_.append(kName, record)) {
    commit_whole();
  } else {
    ++records_;
    bytes_ += record.size();
    whole_ = false;
  }
  return true;
}

bool Catalog::mostly_dead() const {
  return bytes_ > kCompactFrom && records_ > kDeadFactor * rows_.size();
}

void Catalog::commit_whole() {
  std::vector<std::byte> log = catalog_header();
  std::size_t records = 0;
  // A row that no record holds is left out: at the next open its file has none, so it is kept.
  for (const CatalogRow& row : rows_) records += append_record(log, row) ? 1 : 0;
  BytesImage image{std::span<const std::byte>(log)};
  storage_.commit(kName, image);
  records_ = records;
  bytes_ = log.size();
  whole_ = false;
}

}  // namespace millrace
