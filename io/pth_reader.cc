#include "millrace/io/pth_reader.h"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <utility>

#include "millrace/io/crc32.h"
#include "millrace/io/pth_contents.h"
#include "millrace/io/zip_directory.h"

namespace millrace {

PthReader::PthReader(std::shared_ptr<const PthContents> contents)
    : contents_(std::move(contents)) {}

Result<PthReader> PthReader::open(std::shared_ptr<const StoredObject> object, PthLimits limits) {
  auto contents = open_pth(std::move(object), limits);
  if (!contents) return contents.fault();
  return PthReader(std::move(contents.value()));
}

const pickle::Value& PthReader::root() const { return contents_->root; }

std::optional<std::uint64_t> PthReader::storage_size(std::string_view key) const {
  const StoragePlace* place = contents_->storage(key);
  if (place == nullptr) return std::nullopt;
  return place->size;
}

std::vector<std::string> PthReader::storage_keys() const { return contents_->keys; }

Result<std::monostate> PthReader::read_storage(std::string_view key,
                                               std::span<std::byte> out) const {
  const auto size = storage_size(key);
  if (size && out.size() != *size) {
    throw std::logic_error("PthReader::read_storage: the room is not of the storage's size");
  }
  const auto read = stream_storage(key, [&](std::size_t piece) {
    const auto room = out.first(piece);
    out = out.subspan(piece);
    return room;
  });
  if (!read) return read.fault();
  return std::monostate{};
}

Result<std::uint32_t> PthReader::stream_storage(std::string_view key, const Room& room) const {
  const StoragePlace* place = contents_->storage(key);
  if (place == nullptr) {
    return Fault{Fault::Kind::corrupt, "storage " + std::string(key),
                 "The file has no such storage."};
  }
  const StoredObject& object = *contents_->object;
  if (place->entry != nullptr) {
    return read_entry(object, *place->entry, contents_->has_crc(*place->entry), room);
  }
  constexpr std::uint64_t kPiece = std::uint64_t{256} << 10;
  std::uint32_t crc = 0;
  for (std::uint64_t done = 0; done < place->size;) {
    const auto piece = room(std::min(kPiece, place->size - done));
    object.read(place->offset + done, piece);
    crc = crc32(piece, crc);
    done += piece.size();
  }
  return crc;
}

std::uint64_t PthReader::storage_offset(std::string_view key) const {
  const StoragePlace* place = contents_->storage(key);
  if (place == nullptr) return 0;
  if (place->entry == nullptr) return place->offset;
  if (place->entry->deflated) return 0;
  const auto at = locate_entry(*contents_->object, *place->entry);
  return at ? at.value() : 0;
}

Result<std::optional<std::vector<std::byte>>> PthReader::entry(std::string_view name) const {
  const ZipEntry* found = contents_->find(name);
  if (found == nullptr) return std::optional<std::vector<std::byte>>();
  auto bytes = contents_->read_whole(*found);
  if (!bytes) return bytes.fault();
  return std::optional(std::move(bytes.value()));
}

Result<std::monostate> PthReader::verify() const { return read_all({}); }

Result<std::monostate> PthReader::read_all(const StorageRoom& room) const {
  std::map<const ZipEntry*, const std::string*> storages;
  if (room) {
    for (const std::string& key : contents_->keys) {
      const StoragePlace* place = contents_->storage(key);
      if (place->entry != nullptr) {
        storages.emplace(place->entry, &key);
        continue;
      }
      const auto read = read_storage(key, room(key, place->size));
      if (!read) return read.fault();
    }
  }
  if (contents_->zip) {
    std::vector<std::byte> scratch;
    for (const ZipEntry& entry : contents_->zip->entries()) {
      const auto storage = storages.find(&entry);
      std::span<std::byte> rest;
      if (storage != storages.end()) {
        rest = room(*storage->second, storage_size(*storage->second).value());
      }
      const auto read =
          read_entry(*contents_->object, entry, contents_->has_crc(entry), [&](std::size_t n) {
            if (storage == storages.end()) {
              if (scratch.size() < n) scratch.resize(n);
              return std::span(scratch).first(n);
            }
            return std::exchange(rest, rest.subspan(n)).first(n);
          });
      if (!read) return read.fault();
    }
  }
  if (auto fault = contents_->check_tree()) return *std::move(fault);
  return std::monostate{};
}

}  // namespace millrace
