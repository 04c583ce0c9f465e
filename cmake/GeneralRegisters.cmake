# For code that runs while the guest's vector registers are in the host's (src/engine/dbt/README.md): general registers only, and
# no calls of library string functions, which use the others.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(BH_GENERAL_REGISTERS_ONLY -mgeneral-regs-only -minline-all-stringops -mmemcpy-strategy=rep_8byte:-1:noalign
    -mmemset-strategy=rep_8byte:-1:noalign -fno-tree-loop-distribute-patterns)
else()
  # clang's -mgeneral-regs-only refuses the standard library's headers. It still calls memcpy(): programs made with clang are for
  # fuzzing and analysis, where no translated code runs.
  set(BH_GENERAL_REGISTERS_ONLY -mno-implicit-float)
endif()

# bh_check_general_registers(TARGET "MEMBER..." ALLOWED): a test that the archive of TARGET, or those members of it, keep to that. Only for
# gcc's optimised code: that is what guests run on.
function(bh_check_general_registers target members allowed)
  if(BULKHEAD_TESTS AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_BUILD_TYPE MATCHES "^Rel"
     AND NOT CMAKE_CXX_FLAGS MATCHES "sanitize")
    list(JOIN members ":" joined)
    if(joined)
      set(joined ":${joined}")
    endif()
    add_test(NAME ${target}_uses_general_registers_only
      COMMAND ${PROJECT_SOURCE_DIR}/tools/check-general-registers $<TARGET_FILE:${target}>${joined} --allow ${allowed})
  endif()
endfunction()
