#include "tests/stress/crash_check.h"

#include <algorithm>
#include <exception>
#include <set>
#include <utility>

#include "millrace/io/checkpoint_identity.h"
#include "millrace/io/checkpoint_name.h"
#include "millrace/io/local_storage.h"
#include "millrace/io/memory_storage.h"
#include "millrace/io/object_name.h"
#include "millrace/io/pth_reader.h"
#include "millrace/io/sha256.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "tests/support/images.h"

namespace millrace::test {
namespace {

using Kind = DiskOperation::Kind;
using Promise = CrashPromise::Kind;

std::string last_part(const std::string& path) { return path.substr(path.rfind('/') + 1); }

bool is_object(const std::string& path) {
  const std::string name = last_part(path);
  return is_checkpoint_name(name) && !is_hidden_name(name);
}

using State = std::vector<std::vector<std::byte>>;

// The weights alone, as a published file has them.
State tensors_of(const State& state) { return {state[0], state[2], state[4], state[5]}; }

// As a best file without optimizer has them: with the generator.
State weights_of(const State& state) {
  State weights = tensors_of(state);
  weights.push_back(state[6]);
  return weights;
}

std::unique_ptr<MemoryStorage> stored(const std::vector<std::byte>& bytes) {
  auto storage = std::make_unique<MemoryStorage>();
  commit_bytes(*storage, "file.pth", bytes);
  return storage;
}

}  // namespace

CrashCheck::CrashCheck(const CrashRun& run) : run_(run), promised_(run.promises().size(), kNever) {
  std::fill_n(promised_.begin(), run.kept(), Moment{0});
  read_log();
}

void CrashCheck::fault(std::string_view kind, std::string text) {
  faults_.push_back({kind, std::move(text)});
}

// ---- what the log says

void CrashCheck::read_log() {
  std::map<std::size_t, std::vector<std::byte>> files;
  std::map<std::string, std::vector<std::string>> waiting;  // save ids, by directory
  const auto lands = [&](const std::string& path, std::size_t file) {
    if (!is_object(path) || is_published_name(last_part(path))) return;
    const auto known = read_identity(stored(files[file])->open("file.pth"));
    if (known) waiting[parent_directory(path)].push_back(known.value().save_id);
  };
  for (const auto& [path, number] : run_.log().start_files) {
    files[number] = run_.log().start.files.at(path)->bytes;
    lands(path, number);
  }
  const auto sync = [&](const std::string& directory, Moment now) {
    for (const std::string& id : waiting[directory]) durable_.try_emplace(id, now);
    waiting[directory].clear();
  };
  sync(run_.checkpoints(), 0);
  Moment now = 0;
  for (const DiskOperation& operation : run_.log().operations) {
    ++now;
    std::vector<std::byte>& bytes = files[operation.file];
    if (operation.kind == Kind::kCreate) bytes.clear();
    if (operation.kind == Kind::kResize) bytes.resize(operation.size);
    if (operation.kind == Kind::kWrite) {
      bytes.resize(std::max<std::size_t>(bytes.size(), operation.offset + operation.bytes.size()));
      std::copy(operation.bytes.begin(), operation.bytes.end(),
                bytes.begin() + static_cast<std::ptrdiff_t>(operation.offset));
    }
    if (operation.kind == Kind::kRename) moved_away_[operation.path].push_back(now);
    if (operation.kind == Kind::kUnlink) moved_away_[operation.path].push_back(now);
    if (operation.kind == Kind::kRename || operation.kind == Kind::kLink) {
      moved_onto_[operation.to].push_back(now);
      lands(operation.to, operation.file);
    }
    if (operation.kind == Kind::kSyncDirectory) sync(operation.path, now);
    if (operation.kind == Kind::kMark) promised_[operation.mark] = now;
  }
}

bool CrashCheck::happened(const std::map<std::string, std::vector<Moment>>& moments,
                          const std::string& path, Moment after, Moment until) const {
  const auto found = moments.find(path);
  if (found == moments.end()) return false;
  return std::any_of(found->second.begin(), found->second.end(),
                     [&](Moment moment) { return moment > after && moment <= until; });
}

std::int64_t CrashCheck::newer_of_its_series(std::size_t mark, Moment now) const {
  const auto generation = [this](const CrashPromise& promise) {
    return run_.saves().at(promise.save_id).generation;
  };
  const CrashPromise& older = run_.promises()[mark];
  std::int64_t newer = 0;
  for (std::size_t other = 0; other < promised_.size(); ++other) {
    const CrashPromise& promise = run_.promises()[other];
    if (other == mark || promised_[other] > now) continue;
    if (promise.kind != Promise::kCommitted || promise.best != older.best) continue;
    if (other > mark || generation(promise) > generation(older)) ++newer;
  }
  return newer;
}

bool CrashCheck::given_up(std::size_t mark, Moment now) const {
  const CrashPromise& promise = run_.promises()[mark];
  const std::string path = path_of(promise.name);
  if (happened(moved_onto_, path, promised_[mark], now)) return true;
  const CheckpointHookOptions hook = run_.plan().hook();
  const std::int64_t keeps = promise.best ? 1 : hook.max_keep_ckpts;
  if (promise.for_ever || keeps < 0 || newer_of_its_series(mark, now) < keeps) return false;
  return happened(moved_away_, path, promised_[mark], now);
}

std::uint64_t CrashCheck::promised(Moment now, bool pointer) const {
  std::uint64_t highest = 0;
  for (std::size_t mark = 0; mark < promised_.size(); ++mark) {
    const CrashPromise& promise = run_.promises()[mark];
    if (promise.kind != Promise::kCommitted || promised_[mark] > now || !promise.full) continue;
    if (pointer && !promise.pointer) continue;
    highest = std::max(highest, run_.saves().at(promise.save_id).generation);
  }
  return highest;
}

// ---- one disk

std::vector<CrashFault> CrashCheck::check(const CrashState& state) {
  faults_.clear();
  check_files(state);
  check_pointer(state);
  check_catalog(state);
  for (std::size_t mark = 0; mark < promised_.size(); ++mark) {
    if (promised_[mark] > state.operations) continue;
    const CrashPromise& promise = run_.promises()[mark];
    const std::string path = path_of(promise.name);
    if (promise.kind == Promise::kCommitted) check_committed(mark, state);
    if (promise.kind == Promise::kRemoved) check_removed(mark, state);
    if (promise.kind == Promise::kPublished && !state.disk.files.contains(path)) {
      fault(crash_fault::kLost, path + ", published");
    }
  }
  check_recovery(state);
  return std::move(faults_);
}

void CrashCheck::check_files(const CrashState& state) {
  for (const auto& [path, file] : state.disk.files) {
    if (!is_object(path)) continue;
    const Verdict& found = verdict(path, file);
    if (!found.fault.empty()) fault(found.fault, path + ": " + found.text);
  }
}

const CrashCheck::Verdict& CrashCheck::verdict(const std::string& path,
                                               const std::shared_ptr<const DiskFile>& file) {
  const auto [found, added] = verdicts_.try_emplace(file);
  if (added) {
    const bool published = is_published_name(last_part(path));
    found->second = published ? judge_published(last_part(path), file->bytes) : judge(file->bytes);
  }
  return found->second;
}

CrashCheck::Verdict CrashCheck::judge(const std::vector<std::byte>& bytes) const {
  Verdict verdict;
  try {
    const auto storage = stored(bytes);
    const CheckpointFile file = CheckpointFile::read(*storage, "file.pth");
    if (!file.record()) return {crash_fault::kContent, "it has no record", {}, 0};
    verdict.save_id = file.record()->identity.save_id;
    verdict.generation = file.record()->identity.generation;
    const auto save = run_.saves().find(verdict.save_id);
    if (save == run_.saves().end()) {
      verdict.fault = crash_fault::kContent;
      verdict.text = "nobody captured it";
      return verdict;
    }
    const CapturedSave& captured = save->second;
    const auto expected = captured.full ? captured.state : weights_of(captured.state);
    if (state_in(*storage, "file.pth") != expected || captured.generation != verdict.generation) {
      verdict.fault = crash_fault::kContent;
      verdict.text = "it holds another state than was captured for save " + verdict.save_id;
    }
  } catch (const std::exception& error) {
    verdict.fault = crash_fault::kHalfWritten;
    verdict.text = error.what();
  }
  return verdict;
}

CrashCheck::Verdict CrashCheck::judge_published(const std::string& name,
                                                const std::vector<std::byte>& bytes) const {
  if (!name.ends_with("-" + sha256_hex(bytes).substr(0, 8) + ".pth")) {
    return {crash_fault::kDigest, "sha256sum says " + sha256_hex(bytes), {}, 0};
  }
  const auto storage = stored(bytes);
  const auto reader = PthReader::open(storage->open("file.pth"));
  if (!reader || !reader.value().verify()) {
    return {crash_fault::kHalfWritten, "it cannot be read", {}, 0};
  }
  const auto published = state_in(*storage, "file.pth");
  for (const auto& [id, save] : run_.saves()) {
    if (published == tensors_of(save.state)) return {};
  }
  return {crash_fault::kContent, "it holds the weights of no save", {}, 0};
}

void CrashCheck::check_pointer(const CrashState& state) {
  const auto pointer = state.disk.files.find(run_.work_dir() + "/last_checkpoint");
  const std::uint64_t least = promised(state.operations, true);
  if (pointer == state.disk.files.end()) {
    if (least > 0) fault(crash_fault::kPointer, "there is no last_checkpoint");
    return;
  }
  const std::vector<std::byte>& bytes = pointer->second->bytes;
  const std::string path(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const auto file = state.disk.files.find(path);
  if (file == state.disk.files.end()) {
    return fault(crash_fault::kPointer, "it says '" + path + "', which is not there");
  }
  const Verdict& found = verdict(path, file->second);
  if (!found.fault.empty()) {
    fault(crash_fault::kPointer, "it says " + path + ": " + found.text);
  } else if (found.generation < least) {
    fault(crash_fault::kOldPointer, "it says " + path + " of generation " +
                                        std::to_string(found.generation) + ", and " +
                                        std::to_string(least) + " was committed");
  }
}

// Of each row: its file was durable before it could be written.
void CrashCheck::check_catalog(const CrashState& state) {
  catalog_ = nullptr;
  const auto file = state.disk.files.find(path_of(std::string(Catalog::kName)));
  if (file == state.disk.files.end()) return;
  const auto [log, added] = logs_.try_emplace(file->second);
  if (added) log->second = decode_catalog(file->second->bytes);
  catalog_ = &log->second;
  for (const CatalogRow& row : catalog_->rows) {
    const auto durable = durable_.find(row.identity.save_id);
    if (durable != durable_.end() && durable->second <= state.operations) continue;
    fault(crash_fault::kRowEarly, row.name + " of save " + row.identity.save_id);
  }
}

const CatalogRow* CrashCheck::row_of(const CrashPromise& promise) const {
  if (catalog_ == nullptr) return nullptr;
  const auto row =
      std::find_if(catalog_->rows.begin(), catalog_->rows.end(), [&](const CatalogRow& each) {
        return each.name == promise.name && each.identity.save_id == promise.save_id;
      });
  return row != catalog_->rows.end() ? &*row : nullptr;
}

void CrashCheck::check_committed(std::size_t mark, const CrashState& state) {
  if (given_up(mark, state.operations)) return;
  const CrashPromise& promise = run_.promises()[mark];
  const std::string path = path_of(promise.name);
  const auto file = state.disk.files.find(path);
  if (file == state.disk.files.end()) {
    return fault(crash_fault::kLost, path + ", save " + promise.save_id);
  }
  const Verdict& found = verdict(path, file->second);
  if (found.fault.empty() && found.save_id != promise.save_id) {
    fault(crash_fault::kLost, path + ": save " + found.save_id + " in place of " + promise.save_id);
  }
  if (row_of(promise) == nullptr) {
    fault(crash_fault::kRowLost, path + ", save " + promise.save_id);
  }
}

// Another save may have taken the name while the event was on its way.
void CrashCheck::check_removed(std::size_t mark, const CrashState& state) {
  const std::string path = path_of(run_.promises()[mark].name);
  const auto away = moved_away_.find(path);
  if (away == moved_away_.end()) return;  // before the log begins
  Moment removed = 0;
  for (const Moment moment : away->second) {
    if (moment < promised_[mark]) removed = moment;
  }
  const bool taken = happened(moved_onto_, path, removed, state.operations);
  if (state.disk.files.contains(path) && !taken) fault(crash_fault::kBack, path);
}

// ---- recovery

CheckpointStore::Scan CrashCheck::recover(const CrashState& state, CheckpointStore& store) {
  store.prepare();
  // As a resume does it: loaded, not only verified.
  CheckpointStore::Scan scan = store.newest_valid(
      [&store](const std::string& name) { CheckpointFile::read(store.data(), name); });
  const std::uint64_t least = promised(state.operations, false);
  if (!scan.found() && least > 0) {
    fault(crash_fault::kNone, "generation " + std::to_string(least) + " was committed");
  }
  if (scan.found() && scan.identity.generation < least) {
    fault(crash_fault::kOlder, scan.name + " of generation " +
                                   std::to_string(scan.identity.generation) + " is found, and " +
                                   std::to_string(least) + " was committed");
  }
  if (scan.found() && store.highest_generation() < scan.identity.generation) {
    fault(crash_fault::kRecovery, "the next save would not be the newest");
  }
  return scan;
}

// A pin may be unknown, which means keep.
void CrashCheck::check_pins(const CrashState& state, const std::vector<CatalogRow>& rows) {
  for (std::size_t mark = 0; mark < promised_.size(); ++mark) {
    const CrashPromise& promise = run_.promises()[mark];
    if (!promise.pinned || promised_[mark] > state.operations) continue;
    if (given_up(mark, state.operations)) continue;
    for (const CatalogRow& row : rows) {
      if (row.name == promise.name && row.pinned == false) fault(crash_fault::kPin, row.name);
    }
  }
}

void CrashCheck::check_recovery(const CrashState& state) {
  const auto files = std::make_shared<MemoryFileOps>(state.disk);
  try {
    LocalStorage data(run_.checkpoints(), files);
    LocalStorage work_dir(run_.work_dir(), files);
    CheckpointStore store(data, run_.plan().beside ? static_cast<Storage&>(work_dir) : data);
    recover(state, store);
    check_pins(state, store.rows());
    std::vector<std::string> names;
    files->list_directory(run_.checkpoints(), names);
    for (const std::string& name : names) {
      if (is_leftover_name(name)) fault(crash_fault::kRecovery, name + " was not swept");
    }
  } catch (const std::exception& error) {
    fault(crash_fault::kRecovery, error.what());
  }
  if (files->open_descriptors() > 0) fault(crash_fault::kRecovery, "a descriptor is left open");
}

std::vector<CrashFault> CrashCheck::resume(const CrashState& state) {
  faults_.clear();
  const auto files = std::make_shared<MemoryFileOps>(state.disk);
  CheckpointStore::Scan found;
  try {
    LocalStorage data(run_.checkpoints(), std::make_shared<MemoryFileOps>(state.disk));
    CheckpointStore store(data, data);
    found = recover(state, store);
    const auto run = run_.again(files);
    run->train();
    const auto told = run->log->with("Resumed from " + path_of(found.name) + ",");
    if (told.size() != (found.found() ? 1 : 0)) {
      fault(crash_fault::kRecovery, "the run did not resume from '" + found.name + "'");
    }
    LocalStorage after(run_.checkpoints(), files);
    CheckpointStore later(after, after);
    if (later.newest_valid().identity.generation <= found.identity.generation) {
      fault(crash_fault::kRecovery, "the resumed run left no newer checkpoint");
    }
  } catch (const std::exception& error) {
    fault(crash_fault::kRecovery, error.what());
  }
  const DiskImage disk = files->image();
  for (std::size_t mark = 0; mark < promised_.size(); ++mark) {
    const CrashPromise& promise = run_.promises()[mark];
    if (!promise.for_ever || promised_[mark] > state.operations) continue;
    if (given_up(mark, state.operations)) continue;
    if (!disk.files.contains(path_of(promise.name))) {
      fault(crash_fault::kLost, promise.name + ", removed by the resumed run");
    }
  }
  return std::move(faults_);
}

}  // namespace millrace::test
