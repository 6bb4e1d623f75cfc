//! The exported functions, by subject.
//!
//! [`exports`] gives each the type that `nvml.h` gives it: storing the function in the field of
//! `NvmlLib` that has its name compiles only if the two signatures are the same.

#![expect(
    unsafe_code,
    reason = "exported C functions have fixed symbol names and raw pointers"
)]
#![expect(non_snake_case, reason = "the names are those of nvml.h")]

mod confidential;
mod device;
mod event;
mod mig;
mod process;
mod system;

macro_rules! exports {
    ($(fn $name:ident($($argument:ident: $type:ty),*) = |$host:ident| $body:expr;)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($argument: $type),*) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
                $(
                    // SAFETY: this is the caller's promise, passed on.
                    let $argument = unsafe { $crate::answer::FromC::safe($argument) };
                )*
                $crate::answer::answer(stringify!($name), |$host| $body)
            }
        )*

        /// Compiles only if every signature is the one generated from nvml.h.
        #[cfg(test)]
        #[expect(dead_code, reason = "it is checked by being compiled")]
        fn signatures_are_those_of_the_header(library: &mut nvml_wrapper_sys::bindings::NvmlLib) {
            $(library.$name = Ok($name);)*
        }
    };
}
use exports;
