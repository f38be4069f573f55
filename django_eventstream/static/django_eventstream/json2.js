// Empty: every browser has JSON. It is here for templates that still load it; take it out there.
