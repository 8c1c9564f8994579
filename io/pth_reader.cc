#include "millrace/io/pth_reader.h"

#include <stdexcept>
#include <utility>

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
  const StoragePlace* place = contents_->storage(key);
  if (place == nullptr) {
    return Fault{Fault::Kind::corrupt, "storage " + std::string(key),
                 "The file has no such storage."};
  }
  if (out.size() != place->size) {
    throw std::logic_error("PthReader::read_storage: the room is not of the storage's size");
  }
  if (place->entry == nullptr) {
    contents_->object->read(place->offset, out);
    return std::monostate{};
  }
  return read_entry(*contents_->object, *place->entry, contents_->has_crc(*place->entry),
                    [&](std::size_t size) {
                      const auto room = out.first(size);
                      out = out.subspan(size);
                      return room;
                    });
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

Result<std::monostate> PthReader::verify() const {
  if (contents_->zip) {
    std::vector<std::byte> scratch;
    for (const ZipEntry& entry : contents_->zip->entries()) {
      const auto read =
          read_entry(*contents_->object, entry, contents_->has_crc(entry), [&](std::size_t n) {
            if (scratch.size() < n) scratch.resize(n);
            return std::span(scratch).first(n);
          });
      if (!read) return read.fault();
    }
  }
  if (auto fault = contents_->check_tree()) return *std::move(fault);
  return std::monostate{};
}

}  // namespace millrace
