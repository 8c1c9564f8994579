# What the fake CUDA must find: waits of our own that are left out, each with what it says then.
include(millrace_mutant)
add_library(millrace_device_mutant OBJECT device_mutant.cc)
target_link_libraries(millrace_device_mutant PRIVATE millrace_settings GTest::gtest)

function(device_mutant name)
  cmake_parse_arguments(PARSE_ARGV 1 M "" "SOURCE;OLD;NEW;FAILURE;TESTS" "")
  millrace_mutant(device_mutant_${name} SOURCE "${M_SOURCE}" OLD "${M_OLD}" NEW "${M_NEW}"
    DEPENDS millrace_device_mutant millrace_cuda_scenes
    ARGUMENTS "${M_FAILURE}" "${M_TESTS}")
endfunction()

set(steps "CudaTraining.LossesAndScoresAreRightInEverySchedule")
set(saves "CudaSnapshot.HoldsWhatWasCapturedAndBreaksNoRuleInAThousandSchedules")

device_mutant(step_before_its_batch
  SOURCE runtime/device/copy_in.cc
  OLD "train_.wait_for(slot.copied_.event());"
  NEW "static_cast<void>(slot.copied_.event());"
  FAILURE "loss_of(batch_of(number))" TESTS "${steps}")

device_mutant(batch_over_a_step
  SOURCE runtime/device/copy_in.cc
  OLD "if (slot.used_before_) copies_->wait_for(*slot.used_);"
  NEW ""
  FAILURE "loss_of(batch_of(number))" TESTS "${steps}")

device_mutant(copies_taken_for_done
  SOURCE runtime/device/pending_copy.cc
  OLD "under_way_ = under_way_ && !event().done();"
  NEW "under_way_ = under_way_ && !event().done() && false;"
  FAILURE "training.scores(100)" TESTS "${steps}")

device_mutant(snapshot_before_its_step
  SOURCE runtime/staging/device_snapshot.cc
  OLD "lane_->copies->wait_for(*lane_->captured);"
  NEW ""
  FAILURE "seed" TESTS "${saves}")

device_mutant(step_over_a_snapshot
  SOURCE runtime/staging/device_snapshot.cc
  OLD "lane_->train.wait_for(*slot_.chunks[end - 1]);"
  NEW ""
  FAILURE "seed" TESTS "${saves}")

device_mutant(arena_used_early
  SOURCE runtime/staging/device_snapshot.cc
  OLD "behind->wait();"
  NEW ""
  FAILURE "seed" TESTS "${saves}")
