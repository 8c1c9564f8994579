#include "millrace/io/checkpoint_store.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <tuple>

#include "millrace/io/checkpoint_identity.h"
#include "millrace/io/checkpoint_name.h"
#include "millrace/io/object_image.h"
#include "millrace/io/pth_reader.h"

namespace millrace {
namespace {

bool is_best(std::string_view name) { return name.starts_with("best_"); }

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

template <class Change>
void CheckpointStore::change_catalog(Change change) {
  const std::lock_guard lock(mutex_);
  const auto show = [this] {
    const std::lock_guard rows_lock(rows_mutex_);
    rows_ = catalog_.rows();
  };
  try {
    change(catalog_);
  } catch (...) {
    show();  // what could not be written counts all the same, until the next change writes it
    throw;
  }
  show();
}

CheckpointStore::Prepared CheckpointStore::prepare() {
  Prepared prepared;
  prepared.swept = data_.prepare();
  if (&work_dir_ != &data_) {
    for (std::string& name : work_dir_.prepare()) prepared.swept.push_back(std::move(name));
  }
  change_catalog([&](Catalog& catalog) { prepared.notes = catalog.open(); });
  return prepared;
}

CommitTimes CheckpointStore::commit(std::string_view name, FileImage& image,
                                    const CommitOptions& options) {
  CommitTimes times = commit_file(name, image);
  times.durable = commit_records(name, image.size(), options);
  return times;
}

CommitTimes CheckpointStore::commit_file(std::string_view name, FileImage& image) {
  return data_.commit(name, image);
}

std::chrono::steady_clock::time_point CheckpointStore::commit_records(
    std::string_view name, std::uint64_t size, const CommitOptions& options) {
  add_row(name, size, options);
  if (!options.pointer) return std::chrono::steady_clock::now();
  const std::string target = data_.location() + "/" + std::string(name);
  BytesImage pointer{std::string_view(target)};
  return work_dir_.commit(kPointerName, pointer).durable;
}

void CheckpointStore::add_row(std::string_view name, std::uint64_t size,
                              const CommitOptions& options) {
  CatalogRow row;
  row.name = name;
  row.identity = options.identity;
  row.size = size;
  row.digest = options.digest;
  row.saved_at_ns = options.saved_at_ns;
  row.scores = options.scores;
  row.scores_known = true;
  row.pinned = options.pinned;
  change_catalog([&](Catalog& catalog) { catalog.add(std::move(row)); });
}

// The name may have been taken by another save, or be that of an older run's file.
std::uint64_t CheckpointStore::link_file(std::string_view existing, std::string_view name,
                                         const CommitOptions& options) {
  const std::string& expected = options.identity.save_id;
  if (!expected.empty()) {
    const auto known = identity(existing);
    if (!known || known.value().save_id != expected) {
      throw CheckpointError(location() + "/" + std::string(existing),
                            "is not the file of save " + expected + ", of which " +
                                std::string(name) + " was to be a second name");
    }
  }
  if (data_.link(existing, name)) return 0;
  copy_object(data_, existing, data_, name);
  return data_.open(name)->size();
}

void CheckpointStore::link_row(std::string_view existing, std::string_view name,
                               const CommitOptions& options) {
  const std::uint64_t size = data_.open(name)->size();
  change_catalog([&](Catalog& catalog) {
    CatalogRow row;
    if (const CatalogRow* source = catalog.find(existing)) row = *source;
    row.name = name;
    row.size = size;
    row.scores = options.scores;
    row.scores_known = true;
    row.pinned = options.pinned;
    catalog.add(std::move(row));
  });
}

std::uint64_t CheckpointStore::retire(std::string_view name) {
  std::uint64_t bytes = 0;
  try {
    bytes = data_.open(name)->size();
  } catch (const StorageError&) {
    // Gone already: the row still has to say so.
  }
  data_.retire(name);
  change_catalog([&](Catalog& catalog) { catalog.retire(name); });
  return bytes;
}

void CheckpointStore::score(std::string_view save_id, std::string_view metric, double value) {
  change_catalog([&](Catalog& catalog) { catalog.score(save_id, metric, value); });
}

void CheckpointStore::pin(std::string_view name, bool pinned) {
  change_catalog([&](Catalog& catalog) { catalog.pin(name, pinned); });
}

PublishedCheckpoint CheckpointStore::publish(std::string_view name,
                                             std::span<const std::string> published_keys,
                                             const std::stop_token& stop) {
  return publish_checkpoint(data_, name, published_keys, stop);
}

std::vector<CatalogRow> CheckpointStore::rows() const {
  const std::lock_guard lock(rows_mutex_);
  return rows_;
}

Result<CheckpointIdentity> CheckpointStore::identity(std::string_view name) const {
  return read_identity(data_.open(name));
}

// A best file of weights alone says nothing about how to go on; a broken one is no loss.
bool CheckpointStore::holds_optimizer(std::string_view name) const {
  const auto reader = PthReader::open(data_.open(name));
  return reader && reader.value().root().find("optimizer") != nullptr;
}

std::vector<CheckpointStore::Candidate> CheckpointStore::candidates(std::vector<Skipped>& skipped) {
  std::vector<Candidate> found;
  for (ObjectInfo& info : data_.list()) {
    if (!is_checkpoint_name(info.name) || is_published_name(info.name)) continue;
    try {
      if (is_best(info.name) && !holds_optimizer(info.name)) continue;
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
  return first_usable([this](const std::string& name) { return why_unusable(name); });
}

CheckpointStore::Scan CheckpointStore::newest_valid(
    const std::function<void(const std::string& name)>& load) {
  return first_usable([&](const std::string& name) {
    try {
      load(name);
      return std::string();
    } catch (const Error& error) {
      std::string reason = why_unusable(name);
      return reason.empty() ? std::string(error.what()) : reason;
    }
  });
}

CheckpointStore::Scan CheckpointStore::first_usable(
    const std::function<std::string(const std::string& name)>& why_not) {
  Scan scan;
  for (const Candidate& candidate : candidates(scan.skipped)) {
    const std::string& name = candidate.info.name;
    std::string reason = why_not(name);
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
  // A file that cannot be read this time may be read the next.
  for (const CatalogRow& row : rows()) highest = std::max(highest, row.identity.generation);
  for (const ObjectInfo& info : data_.list()) {
    if (!is_checkpoint_name(info.name)) continue;
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
