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
// Commit by name (commit_named) is the same with a temp name of the stem; the final name is asked
// for between 2 and 3, so that a digest may be finished while the disk syncs.
//
// Link. Steps 4 to 6 as above, over a temp that costs no bytes:
//
//   1 link(existing, temp)                   old object; temp, maybe. Refused: nothing was done
//   3 link(final, trash), if final exists    old object under both names
//   4 rename(temp, final), unlink(temp)      final is old or new; temp and trash, maybe
//   5, 6 as in a commit
//
// The unlink is for the case that temp and final were one file already: rename then does nothing
// and leaves both names.
//
// Append. A kill may leave a prefix of the bytes, none of them, or all; a power loss before step 2
// has ended also their room with any of its sectors unwritten:
//
//   1 open for append, else create (O_EXCL)  old bytes; an empty object, maybe
//   2 write, fdatasync, close                old bytes and a part of the new
//   3 fsync(directory), where 1 created      all bytes
//
// Step 3 is also made with the first append to a name by this LocalStorage, and with the next one
// after an fsync(directory) failed: whoever created the file may not have come to it.
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
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <utility>

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
  NamedCommit commit_named(std::string_view stem, FileImage& image,
                           const FinalName& final_name) override;
  bool link(std::string_view existing, std::string_view name) override;
  bool append(std::string_view name, std::span<const std::byte> bytes) override;
  std::unique_ptr<StoredObject> open(std::string_view name) const override;
  std::vector<ObjectInfo> list() const override;
  void retire(std::string_view name) override;

 private:
  std::string path_of(std::string_view name) const;
  void make_directory(const std::filesystem::path& path);
  void probe();
  std::vector<std::string> sweep();
  std::string link_to_trash(const std::string& path, const std::string& trash);
  std::string replace(const std::string& temp, std::string_view name);
  void sync_directory(const std::string& uncertain);
  std::pair<int, bool> open_append(const std::string& path);
  bool name_is_durable(std::string_view name) const;

  const std::string directory_;
  const std::shared_ptr<FileOps> ops_;
  const WriteOptions options_;

  mutable std::mutex mutex_;                          // guards what follows
  std::set<std::string, std::less<>> durable_names_;  // appended to, and their names synced
};

}  // namespace millrace
