# What the GPU tests of a ctest log came to: how many ran, how many were skipped, and each reason
# with the number of tests that gave it.
#
# usage: awk -f gpu_summary.awk <LastTest.log>
/^\[       OK \] .* ms\)$/ { ++ran }
/^\[  FAILED  \] .* ms\)$/ { ++ran; ++failed }
/^\[  SKIPPED \] .* ms\)$/ { ++skipped }
reason_follows { ++reasons[$0]; reason_follows = 0 }
/: Skipped$/ { reason_follows = 1 }
END {
  printf "gpu-test: %d run, %d failed, %d skipped", ran, failed, skipped
  if (!ran && !skipped) printf " (this build has none: no CUDA toolkit, or MILLRACE_CUDA=OFF)"
  for (reason in reasons) printf "; why %d were: %s", reasons[reason], reason
  print ""
}
