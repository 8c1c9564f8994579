#include "millrace/io/storage.h"

#include <cerrno>

#include "millrace/io/object_name.h"
#include "millrace/runtime/async/error.h"

namespace millrace {

Storage::NamedCommit Storage::commit_named(std::string_view stem, FileImage&, const FinalName&) {
  throw StorageError("commit", std::string(stem), ENOTSUP);
}

bool Storage::link(std::string_view existing, std::string_view name) {
  check_object_name("link", existing);
  check_object_name("link", name);
  return false;
}

bool Storage::append(std::string_view name, std::span<const std::byte>) {
  check_object_name("append", name);
  return false;
}

}  // namespace millrace
