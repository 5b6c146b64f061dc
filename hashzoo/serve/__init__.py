"""``hashzoo serve``: a page on this machine where a picture is dropped and its neighbours are seen."""
