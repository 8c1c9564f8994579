// LocalStorage: objects as files of one directory, written by a protocol that a crash cannot break.
//
//   <directory>/epoch_3.pth                   an object: any regular file without a leading dot
//   <directory>/.epoch_3.pth.<16 hex>.tmp     being written
//   <directory>/.epoch_3.pth.<16 hex>.trash   being removed
//
// Commit. After a crash (kill, or power loss on a file system that honours fsync) at a step, this
// is what is there:
//
//   1 create temp (O_EXCL), reserve blocks   old object; temp, maybe
//   2 write, fdatasync, close                old object; temp, of any content
//   3 link(final, trash), if final exists    old object under both names; complete temp
//   4 rename(temp, final)                    final is old or new, complete either way; trash, maybe
//   5 fsync(directory)                       new object; trash, maybe
//   6 unlink(trash)                          new object
//
// Why step 3, when rename alone replaces atomically: the last reference to the old bytes is then
// dropped after step 5 and not inside step 4, so freeing gigabytes does not delay durability, and
// on a file system without ordered metadata the old object is complete on disk until the new name
// is. On one without hard links, step 3 is left out. A trash name that step 6 cannot remove is no
// failure of the commit; it is swept.
//
// Retire: rename(final, trash), fsync(directory), unlink(trash). A crash leaves either.
//
// Failures throw StorageError after the temp file was removed; nothing is tried again except calls
// that were interrupted. A failed fdatasync in particular is final: a later commit starts a new
// file under a new name. When fsync(directory) fails at step 5 the outcome is uncertain (the error
// says so): the new object is in place, but a power loss may bring the old one back; both names
// stay.
//
// One LocalStorage at a time prepares and writes a directory: prepare() sweeps hidden names of the
// two shapes above, whoever they belong to. Opened objects keep reading the bytes they were opened
// on, whatever happens to the name, and may outlive the storage.
#pragma once

#include <filesystem>
#include <memory>

#include "millrace/io/file_ops.h"
#include "millrace/io/storage.h"
#include "millrace/io/temp_file.h"

namespace millrace {

class LocalStorage final : public Storage {
 public:
  explicit LocalStorage(const std::filesystem::path& directory);
  LocalStorage(const std::filesystem::path& directory, std::shared_ptr<FileOps> ops,
               WriteOptions options = WriteOptions());

  std::string location() const override { return directory_; }  // as given, without a last slash

  // Creates missing parents too, each made durable in its own parent. Throws StorageError when the
  // path is no directory, or a file cannot be made in it.
  std::vector<std::string> prepare() override;
  CommitTimes commit(std::string_view name, FileImage& image) override;
  std::unique_ptr<StoredObject> open(std::string_view name) const override;
  std::vector<ObjectInfo> list() const override;
  void retire(std::string_view name) override;

 private:
  std::string path_of(std::string_view name) const;
  void make_directory(const std::filesystem::path& path);
  void probe();
  std::vector<std::string> sweep();
  bool link_to_trash(const std::string& path, const std::string& trash);
  void replace(TempFile& temp, const std::string& path, const std::string& trash);

  const std::string directory_;
  const std::shared_ptr<FileOps> ops_;
  const WriteOptions options_;
};

}  // namespace millrace
