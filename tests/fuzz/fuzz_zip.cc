// Any bytes as a .pth file: the zip, the tree, the storages. What verifies can be written as a file
// of ours that says the same.
#include <algorithm>
#include <optional>

#include "millrace/io/pickler.h"
#include "millrace/io/pth_reader.h"
#include "millrace/io/unpickler.h"
#include "millrace/io/zip_directory.h"
#include "tests/fuzz/invariant.h"
#include "tests/io/support/allocation_meter.h"
#include "tests/io/support/pth_file.h"

using namespace millrace;
using fuzz::invariant;

namespace {

constexpr std::uint64_t kMaxPickle = std::uint64_t{64} << 10;
// Deflated storages may expand; beyond this they are not taken out.
constexpr std::uint64_t kMaxStorages = std::uint64_t{4} << 20;
const PthLimits kLimits{.max_pickle_bytes = kMaxPickle, .max_entries = 1'000};

void check_entries(const StoredObject& object, const ZipDirectory& zip) {
  for (const ZipEntry& entry : zip.entries()) {
    invariant(zip.find(entry.name) == &entry, "an entry is found by its name");
    invariant(entry.header_offset < entry.end_limit && entry.end_limit <= object.size(),
              "an entry lies inside the file");
    const auto at = locate_entry(object, entry);
    if (!at) continue;
    invariant(at.value() > entry.header_offset && entry.stored_size <= entry.end_limit - at.value(),
              "an entry's bytes lie before the next one");
    std::vector<std::byte> scratch;
    std::uint64_t asked = 0;
    const auto read = read_entry(object, entry, false, [&](std::size_t size) {
      invariant(size > 0, "room is asked for something");
      if (scratch.size() < size) scratch.resize(size);
      asked += size;
      return std::span(scratch).first(size);
    });
    invariant(asked <= entry.size, "room is asked for no more than the entry's size");
    invariant(!read || asked == entry.size, "an entry that was read is whole");
  }
}

void check_zip(const StoredObject& object) {
  const test::AllocationMeter meter;
  const auto zip = ZipDirectory::read(object, kLimits.max_entries);
  // The end of the file is looked at in a window of 64 KiB.
  invariant(meter.peak() <= 16 * object.size() + (128u << 10), "a directory's memory");
  if (zip) check_entries(object, zip.value());
}

using Storages = std::vector<std::vector<std::byte>>;

std::optional<Storages> storages_of(const PthReader& file) {
  std::uint64_t total = 0;
  for (const std::string& key : file.storage_keys()) total += *file.storage_size(key);
  if (total > kMaxStorages) return std::nullopt;
  Storages storages;
  for (const std::string& key : file.storage_keys()) {
    std::vector<std::byte>& bytes = storages.emplace_back(*file.storage_size(key));
    invariant(file.read_storage(key, bytes).ok(), "a storage of a file that verifies reads");
  }
  return storages;
}

// The file's tree and storages as Millrace writes them, under the names it would give them.
void check_rewritten(const PthReader& file) {
  const auto storages = storages_of(file);
  if (!storages) return;
  pickle::StorageNames names;
  for (const std::string& key : file.storage_keys()) {
    names.emplace(key, std::to_string(names.size()));
  }
  const auto tree = pickle::pickle(file.root(), names);
  const auto again =
      PthReader::open(test::in_memory(test::make_file_of_pickle(tree, *storages)), {});
  invariant(again.ok(), "what verifies and is written opens");
  invariant(again.value().verify().ok(), "and verifies");
  const auto written = pickle::unpickle(tree);
  invariant(written.ok() && again.value().root() == written.value(), "with the same tree");
  invariant(storages_of(again.value()) == storages, "and the same storages");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = fuzz::bytes_of(data, size);
  const auto object = test::in_memory({bytes.begin(), bytes.end()});
  check_zip(*object);
  const test::AllocationMeter meter;
  const auto file = PthReader::open(object, kLimits);
  // A pickle may be deflated, so it is bounded by its own limit and not by the file's size.
  invariant(meter.peak() <= 16 * size + 600 * std::max(size, kMaxPickle) + (1u << 20),
            "memory in proportion to the input");
  if (file && file.value().verify()) check_rewritten(file.value());
  return 0;
}
