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
