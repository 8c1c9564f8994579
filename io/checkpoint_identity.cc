#include "millrace/io/checkpoint_identity.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "millrace/io/file_signature.h"
#include "millrace/io/pth_contents.h"
#include "millrace/io/pth_legacy.h"
#include "millrace/io/zip_format.h"

namespace millrace {
namespace {

constexpr std::string_view kRecord = "/millrace/state";
constexpr std::string_view kPickle = "/data.pkl";

bool is_zip(std::span<const std::byte> head) {
  constexpr std::string_view kSignature = "PK\3\4";
  return head.size() >= kSignature.size() &&
         std::equal(kSignature.begin(), kSignature.end(), head.begin(),
                    [](char c, std::byte b) { return static_cast<std::byte>(c) == b; });
}

// The entry of that name in the file's root folder, whatever the folder is called.
const ZipEntry* find_below_root(const ZipDirectory& zip, std::string_view name) {
  for (const ZipEntry& entry : zip.entries()) {
    if (entry.name.ends_with(name) && entry.name.find('/') == entry.name.size() - name.size()) {
      return &entry;
    }
  }
  return nullptr;
}

// A damaged name in the directory would hide the record; its own header still has the true one.
std::optional<Fault> find_hidden(const PthContents& file, const ZipDirectory& zip) {
  for (const ZipEntry& entry : zip.entries()) {
    if (entry.name.find("/data/") != std::string::npos) continue;
    const auto located = locate_entry(*file.object, entry);
    if (!located) return located.fault();
  }
  return std::nullopt;
}

Result<CheckpointIdentity> identity_in_zip(PthContents& file) {
  auto directory = ZipDirectory::read(*file.object, file.limits.max_entries);
  if (!directory) return directory.fault();
  if (find_below_root(directory.value(), kPickle) == nullptr) {
    std::vector<std::string_view> names;
    for (const ZipEntry& entry : directory->entries()) names.push_back(entry.name);
    return Fault{
        Fault::Kind::foreign, {}, "This is " + zip_looks_like(names) + ", not a checkpoint."};
  }
  const ZipEntry* entry = find_below_root(directory.value(), kRecord);
  if (entry == nullptr) {
    if (auto fault = find_hidden(file, directory.value())) return *std::move(fault);
    return CheckpointIdentity{};
  }
  file.ours = true;
  const auto bytes = file.read_whole(*entry);
  if (!bytes) return bytes.fault();
  auto record = decode_state_record(bytes.value());
  if (!record) return record.fault();
  return std::move(record->identity);
}

}  // namespace

Result<CheckpointIdentity> read_identity(std::shared_ptr<const StoredObject> object) {
  std::vector<std::byte> head(std::min<std::uint64_t>(object->size(), 512));
  object->read(0, head);
  if (!is_zip(head)) {
    if (maybe_legacy(head)) return CheckpointIdentity{};
    return Fault{Fault::Kind::foreign, {}, "This is " + looks_like(head) + ", not a checkpoint."};
  }
  PthContents file;
  file.object = std::move(object);
  return identity_in_zip(file);
}

}  // namespace millrace
