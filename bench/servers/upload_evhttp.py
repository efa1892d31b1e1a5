"""Uploads to disk for the "app" benchmark: upload_evhttp.py HOST PORT FOLDER. /raw writes the body, /multipart a form's file."""

import os
import sys

import evhttp

host, port, folder = sys.argv[1:]


def handler(req, res):
    def saved(path, error):
        if path is None:
            raise error
        res.send(b"%d" % os.stat(path).st_size)
        os.unlink(path)

    def read(form, error):
        if form is None:
            raise error
        with form:
            res.send(b"%d" % form.files[0].size)

    if req.path == "/raw":
        req.save_body(folder, saved)
    else:
        req.read_multipart(read, folder=folder, max_file_size=1 << 31)
    res.defer()


limits = evhttp.Limits(max_body_size=0x7FFF_FFFF)
evhttp.Server(handler, stream_bodies=True, limits=limits).listen(host, int(port)).run()
