import Glibc

/// What happens where a file would pass the size that the process may give its files: `ulimit -f`, RLIMIT_FSIZE.
enum FileSizeLimit {
  /// Makes it an error of the call, `EFBIG`, and not the end of the process, which it is by default: with the error comes a signal,
  /// SIGXFSZ (write(2)). Only the first use in a process does anything.
  ///
  /// What the program itself has decided about the signal stays. A handler that does nothing is set, since programs that this one
  /// starts would inherit that the signal is ignored.
  static let isAnError: Void = {
    var action = sigaction()
    // Safe, both: the calls read or fill in `action`, and the handler does nothing.
    guard unsafe sigaction(SIGXFSZ, nil, &action) == 0, unsafe action.__sigaction_handler.sa_handler == nil else {
      return
    }
    unsafe action.__sigaction_handler.sa_handler = { _ in }
    action.sa_flags = SA_RESTART
    _ = unsafe sigaction(SIGXFSZ, &action, nil)
  }()
}
