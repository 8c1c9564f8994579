# What the search for crash states must find: lines of our own that are wrong, each with a fault to
# which it has to lead (crash_check.h).
include(millrace_mutant)
add_library(millrace_crash_mutant OBJECT crash_mutant.cc ../support/stress.cc)
target_link_libraries(millrace_crash_mutant PRIVATE millrace_crash_search millrace_settings)

function(crash_mutant name)
  cmake_parse_arguments(PARSE_ARGV 1 M "" "SOURCE;OLD;NEW;FAULT" "")
  millrace_mutant(crash_mutant_${name} SOURCE "${M_SOURCE}" OLD "${M_OLD}" NEW "${M_NEW}"
    DEPENDS millrace_crash_mutant millrace_crash_search ARGUMENTS "${M_FAULT}")
endfunction()

crash_mutant(no_directory_fsync
  SOURCE io/local_storage.cc
  OLD "const int synced = ops_->fsync_dir(directory_);"
  NEW "const int synced = 0;"
  FAULT "no valid checkpoint")

crash_mutant(no_fdatasync
  SOURCE io/temp_file.cc
  OLD "const int synced = ops_.fdatasync(fd_);"
  NEW "const int synced = 0;"
  FAULT "half-written under a final name")

crash_mutant(removal_before_commit
  SOURCE hooks/checkpoint_hook.cc
  OLD "kept_.plan({target.file, id, target.step, run_->clock.unix_ns(), pinned});"
  NEW [[kept_.plan({target.file, id, target.step, run_->clock.unix_ns(), pinned});
    run_->checkpointer.retire(*store_, kept_.committed(id));]]
  FAULT "no valid checkpoint")

crash_mutant(row_before_file
  SOURCE runtime/engine/save_job.cc
  OLD "if (!file_there) write_image();"
  NEW [[CheckpointStore::CommitOptions early;
  early.identity = record.identity;
  early.pointer = false;
  request.store->commit_records(request.filename, io_bytes, early);
  if (!file_there) write_image();]]
  FAULT "a row before its file")

crash_mutant(pointer_after_removal
  SOURCE io/checkpoint_store.cc
  OLD "BytesImage pointer{std::string_view(target)};"
  NEW [[static std::string newest;
  const std::string old = std::exchange(newest, std::string(name));
  if (!old.empty() && old != name) retire(old);
  BytesImage pointer{std::string_view(target)};]]
  FAULT "last_checkpoint names no valid file")

crash_mutant(newest_by_step
  SOURCE io/checkpoint_store.cc
  OLD [[std::tie(a.identity.generation, a.info.modified_ns, a.info.name) >
           std::tie(b.identity.generation, b.info.modified_ns, b.info.name)]]
  NEW "std::tie(a.identity.iter, a.info.modified_ns) > std::tie(b.identity.iter, b.info.modified_ns)"
  FAULT "older than promised")

# Ours: the old object makes way before the new one is there; a removal that nobody made durable;
# an appended row that was not synced.
crash_mutant(old_moved_away_first
  SOURCE io/local_storage.cc
  OLD "const std::string trash = link_to_trash(path, path_of(trash_name(name)));"
  NEW [[std::string trash = path_of(trash_name(name));
  if (ops_->rename(path, trash) < 0) trash.clear();]]
  FAULT "last_checkpoint names no valid file")

crash_mutant(removal_not_durable
  SOURCE io/local_storage.cc
  OLD [[sync_directory("whether the removal of " + path + " survives a power loss");]]
  NEW ""
  FAULT "a removed file is back")

crash_mutant(append_not_synced
  SOURCE io/local_storage.cc
  OLD [[throw_if_failed(ops_->fdatasync(fd), "fdatasync", path, "while appending");]]
  NEW ""
  FAULT "a promised row is gone")

crash_mutant(pointer_not_durable
  SOURCE io/local_storage.cc
  OLD [[sync_directory("whether " + path_of(done.name) + " survives a power loss; nothing was removed");]]
  NEW [[if (done.name != "last_checkpoint") sync_directory("");]]
  FAULT "last_checkpoint is older than promised")

crash_mutant(pin_not_written
  SOURCE runtime/engine/save_job.cc
  OLD "options.pinned = request.pinned;"
  NEW "options.pinned = false;"
  FAULT "a pin is gone")

crash_mutant(published_storages_mixed
  SOURCE io/publish.cc
  OLD "source_.stream_storage(keys_[i],"
  NEW "source_.stream_storage(keys_[0],"
  FAULT "not what was captured")

crash_mutant(published_name_of_its_source
  SOURCE io/publish.cc
  OLD "return published_name(name, published.sha256);"
  NEW [[return published_name(name, std::string(64, 'a'));]]
  FAULT "a published name is not its SHA-256")

crash_mutant(keeps_one_less
  SOURCE io/retention.cc
  OLD "const std::size_t last = static_cast<std::size_t>(rules_.last);"
  NEW "const std::size_t last = static_cast<std::size_t>(rules_.last > 1 ? rules_.last - 1 : 1);"
  FAULT "a promised file is gone")
